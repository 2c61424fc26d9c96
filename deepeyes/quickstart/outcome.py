"""What a quickstart is held against: its answers are right, and its tool is used where it is needed and only there."""

from __future__ import annotations

from evaluation.runs.summary import RunSummary

NEEDED = "crop"
NOT_NEEDED = "direct"
"""Kinds of the family's questions, as the benchmark's categories have them."""
SUCCESS_ACCURACY = 0.90
"""Held-out accuracy that a healthy run passes after RL; see docs/results.md for the seeds behind it."""
SUCCESS_ADAPTIVITY = 0.50
"""Likewise of `adaptivity`."""


def tool_rate(summary: RunSummary, kind: str) -> float | None:
    """Share of the evaluated episodes of a kind that called a tool; None if there are none."""
    return summary.categories[kind].tool_rate if kind in summary.categories else None


def adaptivity(summary: RunSummary) -> float | None:
    """Share of episodes with a tool call where one is needed, minus that where none is; None if either was not evaluated."""
    needed, not_needed = (tool_rate(summary, kind) for kind in (NEEDED, NOT_NEEDED))
    return None if needed is None or not_needed is None else needed - not_needed


def shortcomings(summary: RunSummary) -> list[str]:
    """What of a run after RL falls short of a healthy one, in words; empty if nothing does."""
    found = {"accuracy": (summary.accuracy, SUCCESS_ACCURACY), "adaptivity": (adaptivity(summary), SUCCESS_ADAPTIVITY)}
    return [
        f"{name} ended at {'none' if value is None else f'{value:.2f}'}, below the {limit:.2f} of a healthy run"
        for name, (value, limit) in found.items()
        if value is None or value < limit
    ]
