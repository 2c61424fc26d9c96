"""How a model used its tools over a run, from the rows of scores.jsonl."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evaluation.runs.tool_use import KINDS
from evaluation.statistics import totals

Row = Mapping[str, Any]
_TOOL, _KIND, _ERROR, _PLACEHOLDER, _REPEATED, _SECONDS = range(6)
"""Places in a row's `calls`; see `episode_facts`."""


def analyse(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that is counted; shares are of the episodes, or of the calls, that were evaluated.

    Args:
        rows: Of scores.jsonl; what was not evaluated is left out.
    """
    rows = [row for row in rows if row["correct"] is not None]
    if not rows:
        return {}
    calls = [call for row in rows for call in row["calls"]]
    code = [call for call in calls if call[_TOOL] == "python"]
    per_episode = [row["tool_calls"] for row in rows]
    return {
        "episodes": len(rows),
        "tool_rate": _share(rows, lambda row: row["tool_calls"] > 0),
        "calls_mean": statistics.fmean(per_episode),
        "calls_sd": statistics.pstdev(per_episode),
        "calls_histogram": {str(count): number for count, number in sorted(Counter(per_episode).items())},
        "mix": {kind: sum(call[_KIND] == kind for call in calls) for kind in KINDS},
        "search_rate": _share(rows, lambda row: any(call[_KIND] in ("search", "image_search") for call in row["calls"])),
        "reply_tokens": _spread(row["reply_tokens"] for row in rows),
        "prompt_tokens": _spread(row["prompt_tokens"] for row in rows),
        "wall_s": _spread(row["wall_s"] for row in rows),
        "model_s_mean": statistics.fmean(row["reply_s"] for row in rows),
        "tool_s_mean": statistics.fmean(row["tool_s"] for row in rows),
        "images_seen_mean": statistics.fmean(row["images_seen"] for row in rows),
        "code": {
            "calls": len(code),
            "succeeded": _share(code, lambda call: not call[_ERROR]),
            "errors": dict(Counter(call[_ERROR] for call in code if call[_ERROR]).most_common()),
            "placeholders": sum(call[_PLACEHOLDER] for call in code),
        },
        "refused_calls": dict(
            Counter(call[_ERROR] for call in calls if call[_ERROR] and call[_TOOL] != "python").most_common()
        ),
        "repeated_calls": sum(call[_REPEATED] for call in calls),
        "stop_reasons": dict(Counter(row["stop_reason"] for row in rows).most_common()),
        "cut_replies": sum(row["cut"] for row in rows),
        "format": {
            "well_formed": _share(rows, lambda row: not row["format_errors"]),
            "violations": dict(Counter(error for row in rows for error in row["format_errors"]).most_common()),
        },
        "accuracy_by": {
            "tool use": _split(rows, lambda row: "used a tool" if row["tool_calls"] else "used none"),
            "first call": _split(rows, lambda row: str(row["calls"][0][_KIND]) if row["calls"] else "none"),
            "number of calls": _split(rows, lambda row: str(row["tool_calls"]) if row["tool_calls"] < 4 else "4 or more"),
            "decided by": _split(rows, lambda row: str(row["decided_by"]).partition(":")[0]),
            "format": _split(rows, lambda row: "well formed" if not row["format_errors"] else "not well formed"),
            "code": _split([row for row in rows if row["calls"]], _worst_call),
        },
    }


def _worst_call(row: Row) -> str:
    errors = [call for call in row["calls"] if call[_ERROR]]
    if not errors:
        return "no call failed"
    return "all calls failed" if len(errors) == len(row["calls"]) else "some calls failed"


def _share(entries: Sequence[Any], holds: Callable[[Any], bool]) -> float | None:
    return sum(map(holds, entries)) / len(entries) if entries else None


def _spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "mean": statistics.fmean(ordered),
        "median": float(ordered[len(ordered) // 2]),
        "p90": float(ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]),
    }


def _split(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    names = ("items", "accuracy", "accuracy_interval")
    return {name: {part: found[part] for part in names} for name, found in sorted((k, totals(v)) for k, v in groups.items())}
