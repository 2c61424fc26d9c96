"""What the multiple-choice benchmarks of VLMEvalKit's kind share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from evaluation.benchmarks import Benchmark, Item, items_of
from evaluation.errors import BenchmarkError
from evaluation.scoring.choices import grade_choice
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.questions import SELECT, choice_question
from evaluation.tables.tsv import Row, as_letter, need, pick, read_tsv


class ChoiceBenchmark(Benchmark):
    """A TSV with options in columns of their own."""

    columns: ClassVar[tuple[str, ...]] = ("image", "question", "answer", "A", "B", "category")
    kept: ClassVar[tuple[str, ...]] = ()
    """Further columns that scoring needs."""
    ending: ClassVar[str] = SELECT

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(read_tsv(path, required=self.columns), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer")
        choices, gold = row.choices(), as_letter(row.values["answer"])
        if gold not in choices:
            raise BenchmarkError(
                f"{row.place}: answer {row.values['answer']!r} is none of the options {', '.join(choices) or '(none)'}"
            )
        if not row.image:
            raise BenchmarkError(f"{row.place}: there is no image")
        return Item(
            item_id=row.values["index"],
            question=choice_question(row.values, choices, ending=self.ending),
            gold=gold,
            category=row.values.get("category", ""),
            choices=choices,
            fields=pick(row, "question", *self.kept),
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """VLMEvalKit's option rule; see evaluation/scoring/choices.py."""
        return await grade_choice(
            prediction.text, item.gold, item.choices, grader, question=item.fields["question"], item_id=item.item_id
        )
