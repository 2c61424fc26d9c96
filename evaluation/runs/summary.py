"""The totals of a scored run: `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agent.episode_rows import UnreadableRecord
from agent.files import write_whole
from agent.records import STRICT, validated
from evaluation.runs.files import RunMismatch, read_text, version_of
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.statistics import Totals, totals

VERSION = 2
"""1 called episodes items, and its accuracy was a mean over episodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary(Totals):
    """What a run's scores come to."""

    __pydantic_config__ = STRICT

    benchmark: str
    headline: str
    """Name of the score that stands in tables."""
    headline_score: float | None
    points: bool
    """The headline is a number of points and not a share."""
    scores: Mapping[str, float]
    """The benchmark's own table, the mean over samples."""
    note: str
    profile: str
    parity: bool
    judge: str
    """The LLM's name; `none` without one."""
    judge_prompts: Mapping[str, str]
    """Prompt that was used -> its SHA-256."""
    judge_tokens: int
    samples: int
    at_k: Mapping[str, float]
    """`mean@n` and `pass@k`, with several samples."""
    at_k_items: int
    """Items all of whose samples were evaluated; `at_k` is over these."""
    categories: Mapping[str, Totals]
    decided_by: Mapping[str, int]
    """Who decided, or why nobody did -> episodes."""
    stop_reasons: Mapping[str, int]
    failures: Mapping[str, int]
    """The five commonest outages, and reasons of rows that could not be used or scored -> episodes."""
    outages: int = 0
    """Episodes that an outage of ours ended, those that were asked again with success among them."""
    repeated_outages: Mapping[str, str] = field(default_factory=dict)
    """Episodes that an outage ended every time while other items were answered -> how often, and the last reason."""
    model_faults: Mapping[str, int] = field(default_factory=dict)
    """What the model was told that it did wrong, by class of the error -> calls."""
    unreadable_lines: int = 0
    """Lines of episodes.jsonl that were left out, for they cannot be read."""
    rules: str = "1"
    """`judge.rules.RULES_VERSION` of this scoring; summaries that do not name it were scored under 1."""
    rules_before: str | None = None
    """Under which rules the run was scored before, if under others."""


_SUMMARY = TypeAdapter(RunSummary)


def write_summary(directory: Path, summary: RunSummary) -> None:
    """Replace the summary of a run."""
    write_whole(directory / "summary.json", json.dumps(as_json(summary), indent=1))


def as_json(summary: RunSummary) -> Mapping[str, object]:
    """A summary as it stands in its file."""
    return {"version": VERSION, **_SUMMARY.dump_python(summary)}


def read_summary(directory: Path) -> RunSummary:
    """The summary of a run.

    Raises:
        RunMismatch: The run was not scored, or its summary is broken, or a newer version wrote it.
    """
    path = directory / "summary.json"
    text = read_text(path)
    version, saved = version_of(path, text, VERSION), json.loads(text)
    saved.pop("version", None)
    if version == 1:
        saved = _of_version_1(saved, read_scores(directory))
    try:
        return validated(_SUMMARY, json.dumps(saved).encode())
    except UnreadableRecord as error:
        raise RunMismatch(f"{path} cannot be read ({error}); score the run again: --stage score") from error


_COUNTED = tuple(one.name for one in fields(Totals))


def _of_version_1(saved: Mapping[str, Any], rows: list[ScoreRow]) -> dict[str, Any]:
    """What was counted then is counted again, with today's meaning, out of the rows beside it."""
    kept = {name: value for name, value in saved.items() if name not in _COUNTED}
    at_k = dict(saved.get("at_k", {}))
    kept |= {"at_k_items": int(at_k.pop("items", 0)), "at_k": at_k}
    names = dict.fromkeys(row.category for row in rows)
    kept["categories"] = {name: asdict(totals([row for row in rows if row.category == name])) for name in sorted(names)}
    return kept | asdict(totals(rows))
