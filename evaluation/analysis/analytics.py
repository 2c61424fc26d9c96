"""How a model used its tools over a run, from the rows of its scores."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.calls import KINDS, CallFacts
from evaluation.runs.rows import ScoreRow
from evaluation.statistics import Totals, totals

_T = TypeVar("_T")
_SEARCHES = ("search", "image_search")


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread of a number that each episode has."""

    mean: float
    median: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeUse:
    """What the calls of `python` were and came to."""

    calls: int
    succeeded: float | None
    """Share without an error; None without calls."""
    errors: Mapping[str, int]
    """Class -> calls, most first."""
    placeholders: int
    """Cells that do nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """Everything that is counted; shares are of the episodes, or of the calls, that were evaluated."""

    episodes: int
    tool_rate: float
    """Share of the episodes with a call."""
    calls_mean: float
    calls_sd: float
    calls_histogram: Mapping[int, int]
    """Calls -> episodes."""
    mix: Mapping[str, int]
    """Kind -> calls."""
    search_rate: float
    reply_tokens: Spread
    prompt_tokens: Spread
    wall_s: Spread
    model_s_mean: float
    tool_s_mean: float
    images_seen_mean: float
    code: CodeUse
    refused_calls: Mapping[str, int]
    """Class of error -> calls of other tools than `python`, most first."""
    repeated_calls: int
    stop_reasons: Mapping[str, int]
    cut_replies: int
    """Episodes with a reply that was cut by its limit."""
    well_formed: float
    """Share of the episodes that break no format rule."""
    violations: Mapping[str, int]
    """Format rule -> how often it is broken."""
    accuracy_by: Mapping[str, Mapping[str, Totals]]
    """Name of a division -> its parts."""


def analyse(rows: Sequence[ScoreRow]) -> ToolUse | None:
    """What the model did.

    Args:
        rows: Of a run; what was not evaluated is left out.

    Returns:
        None if nothing was evaluated.
    """
    rows = [row for row in rows if row.correct is not None]
    if not rows:
        return None
    calls = [call for row in rows for call in row.calls]
    per_episode = [row.tool_calls for row in rows]
    return ToolUse(
        episodes=len(rows),
        tool_rate=_share(rows, lambda row: row.tool_calls > 0) or 0.0,
        calls_mean=statistics.fmean(per_episode),
        calls_sd=statistics.pstdev(per_episode),
        calls_histogram=dict(sorted(Counter(per_episode).items())),
        mix={kind: sum(call.kind == kind for call in calls) for kind in KINDS},
        search_rate=_share(rows, lambda row: any(call.kind in _SEARCHES for call in row.calls)) or 0.0,
        reply_tokens=_spread(row.reply_tokens for row in rows),
        prompt_tokens=_spread(row.prompt_tokens for row in rows),
        wall_s=_spread(row.wall_s for row in rows),
        model_s_mean=statistics.fmean(row.reply_s for row in rows),
        tool_s_mean=statistics.fmean(row.tool_s for row in rows),
        images_seen_mean=statistics.fmean(row.images_seen for row in rows),
        code=_code([call for call in calls if call.tool == "python"]),
        refused_calls=_most(call.error for call in calls if call.error and call.tool != "python"),
        repeated_calls=sum(call.repeated for call in calls),
        stop_reasons=_most(str(row.stop_reason) for row in rows),
        cut_replies=sum(row.cut for row in rows),
        well_formed=_share(rows, lambda row: not row.format_errors) or 0.0,
        violations=_most(error for row in rows for error in row.format_errors),
        accuracy_by={
            "tool use": _split(rows, lambda row: "used a tool" if row.calls else "used none"),
            "first call": _split(rows, lambda row: row.first_call or "none"),
            "number of calls": _split(rows, lambda row: str(row.tool_calls) if row.tool_calls < 4 else "4 or more"),
            "decided by": _split(rows, lambda row: row.decided_by.partition(":")[0]),
            "format": _split(rows, lambda row: "well formed" if not row.format_errors else "not well formed"),
            "code": _split([row for row in rows if row.calls], _worst_call),
        },
    )


def _code(calls: Sequence[CallFacts]) -> CodeUse:
    return CodeUse(
        calls=len(calls),
        succeeded=_share(calls, lambda call: not call.error),
        errors=_most(call.error for call in calls if call.error),
        placeholders=sum(call.placeholder for call in calls),
    )


def _worst_call(row: ScoreRow) -> str:
    if not row.tool_errors:
        return "no call failed"
    return "all calls failed" if row.tool_errors == row.tool_calls else "some calls failed"


def _share(entries: Sequence[_T], holds: Callable[[_T], bool]) -> float | None:
    return sum(map(holds, entries)) / len(entries) if entries else None


def _most(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _spread(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return Spread(statistics.fmean(ordered), float(ordered[len(ordered) // 2]), float(p90))


def _split(rows: Sequence[ScoreRow], key: Callable[[ScoreRow], str]) -> dict[str, Totals]:
    groups: dict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {name: totals(members) for name, members in sorted(groups.items())}
