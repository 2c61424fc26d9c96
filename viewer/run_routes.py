"""What the page asks about a whole run: how far it is read, its groups, curves and failures, and what was said in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Query, Request

from viewer.curves import MEANINGS, Curves, curves
from viewer.failures import Cluster, clusters
from viewer.groups import GroupPage, WholeGroup, group_page, whole_group
from viewer.listing import ListedEpisode
from viewer.runs import READ_S, FoundRun, OpenRuns
from viewer.words import Snippet, snippet

_MOST_PICKED = 64
"""Runs that the list of a folder opens by itself."""
_SNIPPETS_S = 0.3


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is read."""

    episodes: int
    unread_bytes: int
    """Of its records."""
    words: int
    """Episodes whose words are known."""


@dataclass(frozen=True, slots=True)
class PickedRun:
    """A line in the list of a folder's runs; None: the run is not opened yet, or nothing is known."""

    key: str
    title: str
    num_bytes: int
    """Of its records, without images."""
    written_at: float
    """Unix time, in seconds."""
    episodes: int | None = None
    last_step: int | None = None
    score: float | None = None
    """Mean of the last step's episodes, or of all where there are no steps."""
    reward: float | None = None
    """Likewise."""
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An episode in which words were found."""

    episode: ListedEpisode
    snippet: Snippet | None
    """None where there was no time to read the record, or the words stand there with other accents."""


def run_routes(runs: OpenRuns) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api")

    @router.get("/picker")
    def picker() -> list[PickedRun]:
        until = time.monotonic() + READ_S
        return [_picked(runs, one, until) for one in runs.found()]

    @router.get("/runs/{key}/state")
    def state(key: str) -> RunState:
        run = runs[key]
        return RunState(run.index.refresh(READ_S), run.index.unread_bytes, run.words.read())

    @router.get("/runs/{key}/curves")
    def run_curves(request: Request, key: str, split: str = "") -> dict[str, Curves | dict[str, str]]:
        return {"curves": curves(runs[key].index, runs[key].asked(request.query_params), split=split), "meanings": MEANINGS}

    @router.get("/runs/{key}/groups")
    def groups(
        request: Request,
        key: str,
        kind: str = "",
        sort: str = "step",
        descending: bool = False,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=1000),
    ) -> GroupPage:
        filters = runs[key].asked(request.query_params)
        return group_page(runs[key].index, filters, kind=kind, sort=sort, descending=descending, offset=offset, limit=limit)

    @router.get("/runs/{key}/group")
    def group(request: Request, key: str) -> WholeGroup:
        return whole_group(runs[key].index, runs[key].asked(request.query_params), runs[key].rule)

    @router.get("/runs/{key}/failures")
    def failures(request: Request, key: str) -> list[Cluster]:
        runs[key].words.follow(wait_s=READ_S)
        return clusters(runs[key].index, runs[key].asked(request.query_params))

    @router.get("/runs/{key}/search")
    def search(
        request: Request, key: str, find: str, offset: int = Query(0, ge=0), limit: int = Query(50, ge=1, le=200)
    ) -> dict[str, Any]:
        run = runs[key]
        page = run.index.page(run.asked(request.query_params), descending=True, offset=offset, limit=limit)
        until, hits = time.monotonic() + _SNIPPETS_S, list[Hit]()
        for row in page.rows:
            has_time = time.monotonic() < until
            hits.append(Hit(row, snippet(run.index.rollout(row.id), find) if has_time else None))
        return {"total": page.total, "accuracy": page.accuracy, "hits": hits}

    return router


def _picked(runs: OpenRuns, found: FoundRun, until: float) -> PickedRun:
    """A line with what the run's index says, if it is open or there is time to open it."""
    line = PickedRun(found.key, found.title, found.num_bytes, found.written_at)
    if not runs.is_open(found.key) and (time.monotonic() > until or runs.num_open >= _MOST_PICKED):
        return line
    index = runs[found.key].index
    episodes = index.refresh(max(0.0, until - time.monotonic()))
    of_last = "step IS (SELECT max(step) FROM episodes)"
    ((step, score, reward, failed),) = index.select(
        f"SELECT max(step), avg(score) FILTER (WHERE {of_last}), avg(reward) FILTER (WHERE {of_last}), "  # noqa: S608
        "count(*) FILTER (WHERE stop_reason = 'failed') FROM episodes"
    )
    return replace(line, episodes=episodes, last_step=step, score=score, reward=reward, failed=failed)
