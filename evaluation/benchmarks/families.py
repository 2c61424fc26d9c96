"""Synthetic families: our own tasks with exact answers (data/families). `deepeyes data make FAMILY` writes the file, of as
many items as asked for. A category is what a question needs: `direct` no tool, else `crop`, `code`, `search`, `both` or
`image`.

The tool rate of each category is in `summary.json`; what was measured is in benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, items_of
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.tables.tsv import Row, need, read_tsv
from judge.rules import Rules

_RULES = Rules(strict=True)


class Families(Benchmark):
    """Strict rules."""

    name = "families"
    title = "Synthetic families"
    num_items = 200
    files = {"benchmark.tsv": ""}
    suite = ""
    prompt = "families"
    tools = ("python", "search", "image_search")

    def load(self, path: Path) -> Iterator[Item]:
        """Read `benchmark.tsv`.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        if not path.is_file():
            raise BenchmarkError(f"no file {path}; write it with `deepeyes data make FAMILY {path.parent}`")

        def made(row: Row) -> Item:
            need(row, "question", "answer", "category", "tool_needed")
            return Item(
                item_id=row.item_id,
                question=row.values["question"],
                gold=row.values["answer"],
                category=row.values["category"],
                fields={"tool_needed": row.values["tool_needed"]},
                read_images=row.images,
            )

        yield from items_of(read_tsv(path, required=("image", "question", "answer", "category", "tool_needed")), made)

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Right if the answer is the very word or number, by rules alone."""
        verdict = _RULES.judge(prediction.text if prediction.answered else None, item.gold)
        return Grade(correct=verdict.correct, decided_by=verdict.decided_by, extracted=prediction.text[:200])


BENCHMARKS = (Families(),)
