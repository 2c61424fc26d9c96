"""Rows are kept by what the steps before have counted, such as `{plain.right: {max: 2}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import RootModel, model_validator

from curation.folders import OPEN, StepOutcome
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work


class Bounds(Strict):
    """Both ends count."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max is given; give one, such as {max: 2}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; nothing would be kept")
        return self

    def holds(self, low: float, high: float) -> bool | None:
        """Whether a number between two ends is within the bounds; None if that depends on which it is."""
        least = float("-inf") if self.min is None else self.min
        most = float("inf") if self.max is None else self.max
        if least <= low and high <= most:
            return True
        return False if high < least or low > most else None


class KeepSettings(RootModel[dict[str, Bounds]]):
    """Fact -> bounds; all have to hold."""

    @property
    def facts(self) -> tuple[str, ...]:
        """What has to be counted before."""
        return tuple(self.root)


SETTINGS = KeepSettings


def span(row: CuratedRow, fact: str) -> tuple[float, float]:
    """Between which numbers a fact lies: an answer that nobody could judge may be right or wrong."""
    value = float(row.facts[fact])
    label, _, name = fact.rpartition(".")
    unknown = float(row.facts.get(f"{label}.open", 0)) if name in ("right", "wrong") else 0.0
    return value, value + unknown


def holds(row: CuratedRow, conditions: Mapping[str, Bounds]) -> tuple[bool | None, str]:
    """Whether all conditions hold, or None if that is open; and why not."""
    undecided = ""
    for fact, bounds in conditions.items():
        low, high = span(row, fact)
        said = f"{fact} is {low:g}" if low == high else f"{fact} is between {low:g} and {high:g}"
        found = bounds.holds(low, high)
        if found is False:
            return False, said
        undecided = undecided or (said if found is None else "")
    return (None, undecided) if undecided else (True, "")


async def apply(work: Work) -> StepOutcome:
    """Keep rows of which all bounds surely hold."""
    kept, dropped = [], []
    conditions: Any = work.step.settings.root
    for row in work.rows:
        found, why = holds(row, conditions)
        if found:
            kept.append(row)
        else:
            dropped.append((row, f"{OPEN}{why}" if found is None else why))
    return StepOutcome(kept=kept, dropped=dropped)
