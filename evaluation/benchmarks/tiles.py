"""Tiles: our toy task (data/tiles.py). 200 held-out items, written by `deepeyes data tiles`; answers are colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.tables.rows import image_reader, read_rows
from judge.rules import Rules

_RULES = Rules(strict=True)


class Tiles(Benchmark):
    """Strict rules."""

    name = "tiles"
    title = "Tiles (toy)"
    num_items = 200
    files = {"benchmark.jsonl": ""}
    suite = ""
    prompt = "tiles"

    def load(self, path: Path) -> Iterator[Item]:
        """Read `benchmark.jsonl`; image paths are relative to it.

        Raises:
            BenchmarkError: A line is broken or an image is missing.
        """
        if not path.is_file():
            raise BenchmarkError(f"no file {path}; write it with `deepeyes data tiles`")
        for place, row in read_rows(path, required=("index", "question", "answer", "category", "image")):
            if not (path.parent / str(row["image"])).is_file():
                raise BenchmarkError(f"{place}: no image {path.parent / str(row['image'])}")
            yield Item(
                item_id=str(row["index"]),
                question=str(row["question"]),
                gold=str(row["answer"]),
                category=str(row["category"]),
                read_images=image_reader(row["image"], path.parent, place),
            )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Right if the answer is the colour, by rules alone."""
        verdict = _RULES.judge(prediction.text if prediction.answered else None, item.gold)
        return Grade(correct=verdict.correct, decided_by=verdict.decided_by, extracted=prediction.text[:200])


BENCHMARKS = (Tiles(),)
