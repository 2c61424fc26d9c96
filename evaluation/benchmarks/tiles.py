"""Tiles: our toy task (data/tiles.py). 200 held-out items, written by `deepeyes data tiles`; answers are colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, items_of
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.tables.rows import Entry, image_reader, item_name, read_rows
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
            BenchmarkError: No line can be read.
        """
        if not path.is_file():
            raise BenchmarkError(f"no file {path}; write it with `deepeyes data tiles`")

        def made(entry: Entry) -> Item:
            row = entry.values
            if not (path.parent / str(row["image"])).is_file():
                raise BenchmarkError(f"{entry.place}: no image {path.parent / str(row['image'])}")
            return Item(
                item_id=item_name(row["index"]),
                question=str(row["question"]),
                gold=str(row["answer"]),
                category=str(row["category"]),
                read_images=image_reader(row["image"], path.parent, entry.place),
            )

        yield from items_of(read_rows(path, required=("index", "question", "answer", "category", "image")), made)

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Right if the answer is the colour, by rules alone."""
        verdict = _RULES.judge(prediction.text if prediction.answered else None, item.gold)
        return Grade(correct=verdict.correct, decided_by=verdict.decided_by, extracted=prediction.text[:200])


BENCHMARKS = (Tiles(),)
