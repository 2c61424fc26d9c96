"""Tiles: our toy task (data/tiles.py). 200 held-out items, written by `deepeyes data tiles`; answers are colours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from agent.episode import Episode
from agent.images import ImageFile
from evaluation.benchmarks import BenchmarkError, Grade, Item
from judge.rules import Rules

PROMPT = "tiles"
PROFILE = "deepeyes"
_RULES = Rules(strict=True)


def _read(path: Path) -> tuple[ImageFile, ...]:
    return (ImageFile(path.read_bytes()),)


def load(path: Path) -> Iterator[Item]:
    """Read `benchmark.jsonl`; image paths are relative to it.

    Raises:
        BenchmarkError: A line is broken or an image is missing.
    """
    if not path.is_file():
        raise BenchmarkError(f"no file {path}; write it with `deepeyes data tiles`")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            image = path.parent / row["image"]
            item = Item(
                item_id=row["index"],
                question=row["question"],
                gold=row["answer"],
                category=row["category"],
                read_images=partial(_read, image),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{path}:{number} is no tiles item: {error!r}") from error
        if not image.is_file():
            raise BenchmarkError(f"{path}:{number}: no image {image}")
        yield item


def grade(item: Item, episode: Episode) -> Grade:
    """Right if the answer is the colour, by rules alone."""
    verdict = _RULES.judge(episode.answer, item.gold)
    return Grade(correct=verdict.correct, decided_by=verdict.decided_by, extracted=episode.answer or "")
