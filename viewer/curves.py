"""What a run's episodes were like, step by step: means and shares, of all or of each source, category or tool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from viewer.filters import TRUNCATED, where
from viewer.index import EpisodeIndex

SPLITS = ("source", "category", "tool")
MOST_LINES = 8
_PLAYED = "stop_reason != 'failed'"
_MEASURES = {
    "accuracy": "avg(score)",
    "reward": "avg(reward)",
    "tool rate": f"avg(CASE WHEN {_PLAYED} THEN tool_calls > 0 END)",
    "calls": f"avg(CASE WHEN {_PLAYED} THEN tool_calls END)",
    "errors": "total(tool_errors) / nullif(sum(tool_calls), 0)",
    "turns": f"avg(CASE WHEN {_PLAYED} THEN turns END)",
    "tokens": f"avg(CASE WHEN {_PLAYED} THEN tokens END)",
    "seconds": f"avg(CASE WHEN {_PLAYED} THEN wall_s END)",
    "truncated": "avg(CASE WHEN {played} THEN stop_reason IN ({ends}) END)".format(
        played=_PLAYED, ends=", ".join(f"'{end}'" for end in TRUNCATED)
    ),
    "failed": "avg(stop_reason = 'failed')",
    "episodes": "count(*)",
}
MEANINGS = {
    "accuracy": "mean credit of the answers that were scored, in [0, 1]",
    "reward": "mean reward of the episodes that have one",
    "tool rate": "share of episodes with a call; failed ones are in no mean but their own share",
    "calls": "calls per episode",
    "errors": "errors that the model was told, per call",
    "turns": "replies per episode",
    "tokens": "tokens that the model wrote, per episode",
    "seconds": "wall time per episode",
    "truncated": f"share of episodes that a limit ended: {', '.join(TRUNCATED)}",
    "failed": "share of episodes that an outage of ours ended; they are not scored",
    "episodes": "how many were recorded",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of every chart."""

    name: str
    values: dict[str, list[float | None]]
    """Measure -> [num_steps]; None where the step has nothing to say of it."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The charts of a run."""

    steps: list[int]
    """Ascending."""
    curves: list[Curve]
    """The most frequent first."""
    left_out: int
    """Lines beyond `MOST_LINES`."""
    unnumbered: int
    """Episodes of no step."""


def curves(index: EpisodeIndex, filters: Mapping[str, str], *, split: str = "") -> Curves:
    """The charts of the episodes that fit.

    Args:
        index: The run's.
        filters: See `where`.
        split: One of `SPLITS`, or empty for one line.

    Raises:
        ValueError: An unknown split, or a value that its filter cannot have.
    """
    if split and split not in SPLITS:
        raise ValueError(f"no split by {split!r}; there are: {', '.join(SPLITS)}")
    condition, values = where(filters)
    table = "episodes JOIN tools USING (id)" if split == "tool" else "episodes"
    measures = ", ".join(_MEASURES.values())
    rows = index.select(
        f"SELECT coalesce({split or repr('all')}, ''), step, {measures} FROM {table} WHERE {condition} AND step IS NOT NULL "  # noqa: S608
        "GROUP BY 1, 2",
        values,
    )
    ((unnumbered,),) = index.select(f"SELECT count(*) FROM episodes WHERE {condition} AND step IS NULL", values)  # noqa: S608
    counts = defaultdict[str, int](int)
    for row in rows:
        counts[row[0]] += row[-1]
    names = sorted(counts, key=lambda name: (-counts[name], name))
    steps = sorted({row[1] for row in rows})
    of = {(row[0], row[1]): row[2:] for row in rows}
    nothing = (None,) * len(_MEASURES)
    found = [
        Curve(name, {measure: [of.get((name, step), nothing)[at] for step in steps] for at, measure in enumerate(_MEASURES)})
        for name in names[:MOST_LINES]
    ]
    return Curves(steps, found, max(0, len(names) - MOST_LINES), unnumbered)
