"""The first is kept where rows nearly repeat each other."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field

from curation.folders import StepOutcome
from curation.images import of_each, perceptual_hash
from curation.near import NearImages, NearTexts
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work


class TextLikeness(Strict):
    """When questions are near."""

    minhash: float = Field(0.8, gt=0, le=1)
    """Estimated share of words and pairs of words that two have in common."""


class ImageLikeness(Strict):
    """When images are near."""

    phash_bits: int = Field(4, ge=0, le=16)
    """Of 64 that may differ."""


class DedupeSettings(Strict):
    """What counts as the same."""

    text: TextLikeness = TextLikeness()
    image: ImageLikeness = ImageLikeness()
    scope: Literal["question_and_image", "question", "image"] = "question_and_image"
    """`question_and_image` compares both, and questions alone where there is no image: many questions of a template differ
    in their image only, and many questions are asked about one image."""


SETTINGS = DedupeSettings
CODE = ("curation.near", "curation.images")


class _Seen:
    """Rows that are kept so far."""

    def __init__(self, settings: DedupeSettings) -> None:
        self._scope, self._rows = settings.scope, list[CuratedRow]()
        self._texts, self._similarity = NearTexts(settings.text.minhash), settings.text.minhash
        self._images = NearImages(settings.image.phash_bits)

    def take(self, row: CuratedRow, hashes: list[int | None]) -> str:
        """Why it repeats an earlier row; empty, and it is remembered, if it does not."""
        looks = [value for value in hashes if value is not None]
        by_image = self._scope != "question" and bool(looks) and len(looks) == len(hashes)
        text = self._texts.hash(row.question) if self._scope != "image" else None
        if by_image:
            for number, bits in self._images.near(looks):
                likeness = 1.0 if text is None else self._texts.likeness(text, number)
                if likeness >= self._similarity:
                    return f"near-duplicate: of {self._rows[number].key}, {bits} bits, {likeness:.2f} of the words"
        elif text is not None and (self._scope == "question" or not row.images):
            for number in self._texts.near(text):
                return f"near-duplicate: of {self._rows[number].key}, {self._texts.likeness(text, number):.2f} of the words"
        number = len(self._rows)
        self._rows.append(row)
        if text is not None:
            self._texts.add(number, text, indexed=not by_image and (self._scope == "question" or not row.images))
        if by_image:
            self._images.add(number, looks)
        return ""


async def apply(work: Work) -> StepOutcome:
    """Compare each row with those kept before it."""
    names = (name for row in work.rows for name in row.images)
    hashes = await asyncio.to_thread(of_each, names, work.library, perceptual_hash, workers=work.workers)
    return await asyncio.to_thread(_compare, work, hashes)


def _compare(work: Work, hashes: dict[str, int | None]) -> StepOutcome:
    seen, kept, dropped = _Seen(work.step.settings), list[CuratedRow](), list[tuple[CuratedRow, str]]()
    for row in work.rows:
        if reason := seen.take(row, [hashes[name] for name in row.images]):
            dropped.append((row, reason))
        else:
            kept.append(row)
    plain = sum(value is None for value in hashes.values())
    return StepOutcome(kept=kept, dropped=dropped, notes={"images": len(hashes), "images_of_one_colour": plain})
