"""Serves the page and what it asks for; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from agent.record_images import missing_stores
from viewer.access import PageAccess
from viewer.entrance import open_entrance
from viewer.episode_routes import episode_routes
from viewer.index import find_runs
from viewer.listing import EpisodePage, ListedEpisode
from viewer.run_routes import run_routes
from viewer.runs import READ_S, FoundRun, OpenRuns

PAGE = Path(__file__).parent / "page"
"""The files of the page, all of which are served by their names."""
PLOTTING = Path(__file__).parent / "node_modules/uplot/dist"
"""As npm brings it; see setup.py and scripts/setup.sh."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An item in two runs."""

    item_id: str
    left: ListedEpisode | None
    right: ListedEpisode | None


def make_app(
    directories: Sequence[Path],
    *,
    tokenizer: Path | None = None,
    token: str = "",
    hosts: Sequence[str] = (),
    cookie: str = "deepeyes_view",
) -> FastAPI:
    """The application over one run, two, or the runs of a folder.

    Args:
        directories: See `OpenRuns`.
        tokenizer: See `OpenRuns`.
        token: See `PageAccess`.
        hosts: See `PageAccess`.
        cookie: See `PageAccess`.

    Raises:
        FileNotFoundError, ValueError: See `OpenRuns`.
    """
    runs = OpenRuns(directories, tokenizer)
    app = FastAPI(title="deepeyes view", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageAccess, token=token, hosts=hosts, cookie=cookie)
    for kind, status in ((LookupError, 404), (ValueError, 400)):
        app.add_exception_handler(kind, _said(status))
    app.include_router(_files())
    app.include_router(_lists(runs))
    app.include_router(episode_routes(runs))
    app.include_router(run_routes(runs))
    return app


def _said(status: int) -> Any:
    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return answer


def _files() -> APIRouter:
    router = APIRouter()
    assets = {path.name: path for path in PAGE.iterdir()}

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "page.html")

    @router.get("/plotting/{name}")
    def plotting(name: Literal["uPlot.esm.js", "uPlot.min.css"]) -> FileResponse:
        if not (PLOTTING / name).is_file():
            raise HTTPException(404, "uPlot is not in this installation")
        return FileResponse(PLOTTING / name)

    @router.get("/{name}.{suffix}")
    def asset(name: str, suffix: str) -> FileResponse:
        if suffix not in ("js", "css") or f"{name}.{suffix}" not in assets:
            raise HTTPException(404, "no such file")
        return FileResponse(assets[f"{name}.{suffix}"])

    return router


def _lists(runs: OpenRuns) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/runs")
    def list_runs(run: str = "") -> list[dict[str, Any]]:
        return [_told(runs, one, asked=run == one.key) for one in runs.found()]

    @router.get("/runs/{key}/episodes")
    def list_episodes(
        request: Request,
        key: str,
        sort: str = "id",
        descending: bool = False,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=1000),
    ) -> EpisodePage:
        run = runs[key]
        return run.index.page(run.asked(request.query_params), sort=sort, descending=descending, offset=offset, limit=limit)

    @router.get("/compare")
    def compare(
        left_run: str = "",
        right_run: str = "",
        differ: bool = False,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=1000),
    ) -> dict[str, Any]:
        keys = [left_run, right_run] if left_run and right_run else [run.key for run in runs.found()]
        if len(keys) != 2:
            raise LookupError(f"{len(keys)} runs are here; choose two, or start with two folders to compare")
        left, right = (runs[key].index.items() for key in keys)
        items = sorted(left.keys() | right.keys())
        pairs = [Pair(item, left.get(item), right.get(item)) for item in items]
        if differ:
            pairs = [pair for pair in pairs if _verdict(pair.left) != _verdict(pair.right)]
        return {"total": len(pairs), "rows": pairs[offset : offset + limit]}

    return router


def _told(runs: OpenRuns, found: FoundRun, *, asked: bool) -> dict[str, Any]:
    """What the page knows of a run; of one of many only if it was asked for."""
    told: dict[str, Any] = {"key": found.key, "title": found.title}
    if not (runs.given or asked):
        return told
    index = runs[found.key].index
    episodes = index.refresh(READ_S)
    told |= {"episodes": episodes, "unread_bytes": index.unread_bytes, "unreadable": index.unreadable}
    return told | {"facets": index.facets()}


def _verdict(row: ListedEpisode | None) -> str | float:
    if row is None:
        return "missing"
    return row.score if row.score is not None else row.reward if row.reward is not None else row.answer


def serve(
    directories: Sequence[Path],
    *,
    host: str,
    port: int,
    allowed_hosts: Sequence[str] = (),
    tokenizer: Path | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        directories: See `make_app`.
        host: See `open_entrance`.
        port: See `open_entrance`.
        allowed_hosts: See `open_entrance`.
        tokenizer: See `make_app`.

    Raises:
        FileNotFoundError, ValueError: See `OpenRuns`.
        OSError: The port is taken, or the address is not this machine's.
    """
    folders = [folder for directory in directories for folder in find_runs(directory)]
    for missing in filter(None, map(missing_stores, folders)):
        print(f"deepeyes view: {missing}", flush=True)
    entrance = open_entrance(host, port, allowed_hosts)
    with entrance.listener:
        cookie = f"deepeyes_view_{entrance.port}"
        app = make_app(directories, tokenizer=tokenizer, token=entrance.token, hosts=entrance.hosts, cookie=cookie)
        print(f"{entrance.link}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[entrance.listener])
