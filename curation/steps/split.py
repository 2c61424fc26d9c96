"""Rows go into named parts, such as `rl` and `cold`: into the first whose conditions hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, RootModel

from curation.folders import OPEN, StepOutcome
from curation.settings import Name
from curation.steps.keep import Bounds, holds
from curation.work import Work


class SplitSettings(RootModel[dict[Name, dict[str, Bounds]]]):
    """Part -> fact -> bounds; no bounds take all that is left."""

    root: dict[Name, dict[str, Bounds]] = Field(min_length=1)

    @property
    def facts(self) -> tuple[str, ...]:
        """What has to be counted before."""
        return tuple(fact for conditions in self.root.values() for fact in conditions)

    @property
    def makes(self) -> tuple[str, ...]:
        """The parts there are from here on."""
        return tuple(self.root)


SETTINGS = SplitSettings
CODE = ("curation.steps.keep",)


async def apply(work: Work) -> StepOutcome:
    """Put each row into one part."""
    parts: Any = work.step.settings.root
    kept, dropped = [], []
    for row in work.rows:
        reason = ""
        for part, conditions in parts.items():
            found, why = holds(row, conditions)
            if found:
                kept.append(replace(row, part=part))
                break
            reason = reason or why
            if found is None:
                dropped.append((row, f"{OPEN}{why}"))
                break
        else:
            dropped.append((row, f"in no part (the first needs what is not: {reason})"))
    return StepOutcome(
        kept=kept, dropped=dropped, notes={"parts": {part: sum(row.part == part for row in kept) for part in parts}}
    )
