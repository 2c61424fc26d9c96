"""A part is drawn by exact weights of its groups."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curation.errors import CurationError
from curation.folders import StepOutcome
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work


class MixSettings(Strict):
    """One part is mixed, or several; each part's weights add up to 1."""

    model_config = Strict.model_config | {"extra": "allow"}

    total: int = Field(ge=1)
    """Rows of each part that is mixed."""
    short: Literal["error", "less"] = "error"
    """A group that has too few: stop, or draw fewer of all in the same proportions."""
    __pydantic_extra__: dict[str, dict[str, Annotated[float, Field(gt=0)]]]

    @model_validator(mode="after")
    def _adds_up(self) -> MixSettings:
        if not self.weights:
            raise ValueError("no part is named; give one, such as {rl: {perception: 0.5, reason: 0.5}, total: 100}")
        for part, weights in self.weights.items():
            if not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6):
                raise ValueError(f"the weights of {part} add up to {sum(weights.values()):g}; they have to add up to 1")
        return self

    @property
    def weights(self) -> Mapping[str, dict[str, float]]:
        """Part -> group -> weight."""
        return self.__pydantic_extra__ or {}

    @property
    def parts(self) -> tuple[str, ...]:
        """What has to be there."""
        return tuple(self.weights)


SETTINGS = MixSettings


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in the proportion of the weights that add up to the total: what rounding down leaves goes to the largest
    remainders, of equal ones to the first by name.
    """
    exact = {name: Fraction(str(weight)) * total for name, weight in weights.items()}
    whole = {name: math.floor(value) for name, value in exact.items()}
    behind = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in behind[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


async def apply(work: Work) -> StepOutcome:
    """Draw by hash of seed and key, so that a row more or less changes no other's fate.

    Raises:
        CurationError: A group is too small and `short` is `error`.
    """
    settings, kept, dropped, notes = work.step.settings, set[str](), list[tuple[CuratedRow, str]](), dict[str, Any]()
    for part, weights in settings.weights.items():
        groups: dict[str, list[CuratedRow]] = defaultdict(list)
        for row in work.rows:
            if row.part == part:
                groups[row.group].append(row)
        there = {name: len(groups[name]) for name in weights}
        wanted = shares(weights, settings.total)
        if lacking := [f"{name} has {there[name]} of {wanted[name]}" for name in weights if there[name] < wanted[name]]:
            if settings.short == "error":
                raise CurationError(
                    f"mix of {part}: {', '.join(lacking)}; lower total, change the weights, add sources, or set short: less"
                )
            wanted = _fewer(weights, there, settings.total)
        notes[part] = wanted
        for name, number in wanted.items():
            drawn = sorted(groups[name], key=lambda row: _order(work.curation.file.seed, row))[:number]
            kept |= {row.key for row in drawn}
    rows = [row for row in work.rows if row.key in kept or row.part not in settings.weights]
    for row in work.rows:
        if row.part in settings.weights and row.key not in kept:
            weights = settings.weights[row.part]
            dropped.append((row, "not drawn" if row.group in weights else f"group without a weight: {row.group}"))
    return StepOutcome(kept=rows, dropped=dropped, notes={"drawn": notes})


def _fewer(weights: Mapping[str, float], there: Mapping[str, int], total: int) -> dict[str, int]:
    """The largest total that all groups can give."""
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        fits = all(number <= there[name] for name, number in shares(weights, middle).items())
        low, high = (middle, high) if fits else (low, middle - 1)
    return shares(weights, low)


def _order(seed: int, row: CuratedRow) -> bytes:
    return hashlib.sha256(f"{seed}\0{row.key}".encode()).digest()
