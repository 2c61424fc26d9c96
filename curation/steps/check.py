"""Rows that training would stumble over are dropped here, each with the reason."""

from __future__ import annotations

import asyncio

from pydantic import Field

from curation.folders import StepOutcome
from curation.images import fault, of_each
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work
from reinforcement_learning.rewards import load_reward


class CheckSettings(Strict):
    """What a row has to be."""

    min_image_px: int = Field(28, ge=1)
    """Of the shorter side."""
    max_images: int | None = Field(None, ge=0)
    max_question_chars: int = Field(8000, ge=1)
    max_gold_chars: int = Field(300, ge=1)
    """Longer answers are scored 0 by the published rewards, right or wrong."""


SETTINGS = CheckSettings
CODE = ("curation.images",)


async def apply(work: Work) -> StepOutcome:
    """Keep what is whole."""
    names = (name for row in work.rows for name in row.images)
    faults = await asyncio.to_thread(of_each, names, work.library, fault, workers=work.workers)
    kept, dropped = [], []
    for row in work.rows:
        if reason := _reason(row, work.step.settings, faults):
            dropped.append((row, reason))
        else:
            kept.append(row)
    return StepOutcome(kept=kept, dropped=dropped, notes={"images": len(faults)})


def _reason(row: CuratedRow, settings: CheckSettings, faults: dict[str, str]) -> str:
    for number, (name, size) in enumerate(zip(row.images, row.image_sizes, strict=True), start=1):
        if faults[name]:
            return f"image is broken: number {number}, {faults[name]}"
        if min(size) < settings.min_image_px:
            return f"image is too small: number {number} has {size[0]}x{size[1]} pixels"
    if settings.max_images is not None and len(row.images) > settings.max_images:
        return f"too many images: {len(row.images)}"
    if not row.question.strip():
        return "no question: neither extra_info.question nor the prompt has one"
    if len(row.question) > settings.max_question_chars:
        return f"question is too long: {len(row.question):,} characters"
    if min(map(len, row.gold)) > settings.max_gold_chars:
        return f"gold is too long: {min(map(len, row.gold)):,} characters"
    try:
        load_reward(row.data_source)
    except LookupError as error:
        return f"no reward: {error}"
    return ""
