"""What is said of each episode of a scored run: a line of `scores.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from agent.calls import CallFacts
from agent.episode import StopReason
from agent.episode_rows import UnreadableRecord, ended_as
from agent.files import write_whole
from agent.records import STRICT, EpisodeKey, validated
from agent.scores import SCORES_VERSION
from evaluation.runs.files import RunMismatch, read_lines
from evaluation.scoring.grader import Grade

NOT_RUN: Literal["not_run"] = "not_run"
"""The end of an episode that has not been played yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeFacts:
    """What a report counts of one episode."""

    __pydantic_config__ = STRICT

    stop_reason: StopReason | Literal["not_run"] = NOT_RUN
    failure: str = ""
    turns: int = 0
    calls: tuple[CallFacts, ...] = ()
    tool_errors: int = 0
    """Calls that ended in an error the model was told of, those that could not be read among them."""
    reply_tokens: int = 0
    prompt_tokens: int = 0
    reply_s: float = 0.0
    tool_s: float = 0.0
    wall_s: float = 0.0
    images_seen: int = 0
    """Of observations."""
    format_errors: tuple[str, ...] = ()
    """The published format rules that its replies break."""
    cut: bool = False
    """A reply was cut by its token limit."""

    @property
    def tool_calls(self) -> int:
        """How many calls it made."""
        return len(self.calls)

    @property
    def first_call(self) -> str:
        """Kind of its first call; empty without any."""
        return self.calls[0].kind if self.calls else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow(EpisodeFacts):
    """One episode and its grade."""

    __pydantic_config__ = STRICT

    item_id: str
    sample: int = 0
    category: str = ""
    gold: str = ""
    prediction: str = ""
    """What was scored, at most 2,000 characters of it."""
    correct: bool | None
    """None: not evaluated. Never counted as wrong."""
    score: float | None
    """Credit in [0, 1]; None if not evaluated."""
    partial: float | None = None
    decided_by: str
    reason: str = ""
    """Why it was not evaluated, if a row or its scoring is the cause."""
    extracted: str = ""
    extra: Mapping[str, float | str] = field(default_factory=dict)
    judge_tokens: int = 0

    def __post_init__(self) -> None:
        if (self.correct is None) != (self.score is None):
            raise UnreadableRecord(f"correct is {self.correct} and score is {self.score}: it was evaluated or it was not")
        if self.stop_reason != NOT_RUN:
            ended_as(StopReason(self.stop_reason), self.failure)

    @property
    def key(self) -> EpisodeKey:
        """Which episode it is of."""
        return EpisodeKey(self.item_id, self.sample)

    @property
    def grade(self) -> Grade:
        """The grade alone."""
        return Grade(
            correct=self.correct,
            decided_by=self.decided_by,
            extracted=self.extracted,
            partial=self.partial,
            extra=self.extra,
            judge_tokens=self.judge_tokens,
        )


_ROW = TypeAdapter(ScoreRow)
_CURRENT = f'{{"version": {SCORES_VERSION}, '.encode()
_CALL_NAMES = tuple(one.name for one in fields(CallFacts))


def write_scores(directory: Path, rows: Iterable[ScoreRow]) -> None:
    """Replace the scores of a run."""
    lines = (json.dumps({"version": SCORES_VERSION} | _ROW.dump_python(row)) + "\n" for row in rows)
    write_whole(directory / "scores.jsonl", "".join(lines))


def read_scores(directory: Path) -> list[ScoreRow]:
    """The scores of a run, in the order of its items.

    Raises:
        RunMismatch: The run was not scored, or a line is broken, or was written by a version that is not known here.
    """
    path = directory / "scores.jsonl"
    if not path.exists():
        raise RunMismatch(
            f"{directory} was not scored; run `deepeyes eval --out {directory} --stage score` with its other options"
        )
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            rows.append(_row(line.encode("utf-8", "surrogatepass")))
        except UnreadableRecord as error:
            raise RunMismatch(f"{path}:{number} is broken ({error}); score the run again: --stage score") from error
    return rows


def _row(line: bytes) -> ScoreRow:
    if line.startswith(_CURRENT):
        return validated(_ROW, b"{" + line[len(_CURRENT) :])
    try:
        row = json.loads(line)
        version = row.pop("version", 1)
        if version == 1:
            row = _of_version_1(row)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UnreadableRecord(f"{type(error).__name__}: {error}") from error
    if version not in (1, SCORES_VERSION):
        raise UnreadableRecord(f"it has version {version!r}, this code reads 1 to {SCORES_VERSION}; update it")
    return validated(_ROW, json.dumps(row).encode())


def _of_version_1(row: dict[str, Any]) -> dict[str, Any]:
    """Calls were lists, and counted beside them."""
    calls = [dict(zip(_CALL_NAMES, call, strict=True)) for call in row["calls"]]
    if row.pop("tool_calls") != len(calls):
        raise ValueError("tool_calls is not the number of calls")
    return row | {"calls": calls}
