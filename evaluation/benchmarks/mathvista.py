"""MathVista (testmini). Pan Lu et al.: "MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual
Contexts", ICLR 2024.

https://arxiv.org/abs/2310.02255 · 1,000 items, read from VLMEvalKit's MathVista_MINI.tsv.

A right answer that can be read as it stands needs no judge; else the judge extracts the answer, which is then compared by
type. Known to surprise: "14.0" is no integer; items whose answer is a text or a list can never be right in the reference
(its code compares the word "None"), and so they are here. Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathvista.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.scoring.choices import infer_choice
from evaluation.scoring.extraction import LINE, NUMBER, Form, grade_extracted, letter_of, lettered
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, as_letter, literal_list, need, pick, read_tsv

_KEPT = ("question_type", "answer_type", "answer_option", "skills", "task")


def _typed(text: str, answer_type: str) -> int | float | None:
    try:
        return int(text) if answer_type == "integer" else float(text)
    except ValueError:
        return None


class MathVista(Benchmark):
    """Extraction, then equality by type."""

    name = "mathvista"
    title = "MathVista"
    num_items = 1000
    files = {"MathVista_MINI.tsv": "f199b98e178e5a2a20e7048f5dcb0464"}
    suite = "math"
    needs_judge = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        required = (
            "image",
            "question",
            "answer",
            "question_type",
            "answer_type",
            "choices",
            "answer_option",
            "skills",
            "task",
        )
        yield from items_of(read_tsv(path, required=required), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "question_type", "task")
        choices = row.values.get("choices", "")
        options = lettered(literal_list(choices)) if choices.startswith("[") else {}
        kept = pick(row, *_KEPT)
        if "answer_option" in kept:
            kept["answer_option"] = as_letter(kept["answer_option"])
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=row.values["answer"],
            category=row.values["task"],
            choices=options,
            fields=kept,
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """A rule decides if the answer itself names an option or is the value; else what the judge extracts is compared."""
        answer = prediction.text
        if item.fields["question_type"] == "multi_choice":
            letter = infer_choice(answer, item.choices, grader.profile)
            if letter is not None:
                return Grade(correct=letter == item.fields.get("answer_option"), decided_by="rule:choice", extracted=letter)
        elif self._right(item, answer, grader.profile) and _typed(answer, item.fields.get("answer_type", "")) != 0:
            # A right answer of 0 goes to the judge in the reference, because its 0 counts as nothing found.
            return Grade(correct=True, decided_by="rule:number", extracted=answer)
        form = self._form(item)
        return await grade_extracted(
            item.question, answer, grader, lambda found: self._right(item, found, grader.profile), form
        )

    def _form(self, item: Item) -> Form:
        if item.fields["question_type"] == "multi_choice":
            return letter_of(item.choices)
        return NUMBER if item.fields.get("answer_type", "") in ("integer", "float") else LINE

    def _right(self, item: Item, extracted: str, profile: Profile) -> bool:
        if item.fields["question_type"] == "multi_choice":
            return infer_choice(extracted, item.choices, profile) == item.fields.get("answer_option")
        answer_type = item.fields.get("answer_type", "")
        if answer_type not in ("integer", "float"):
            return False
        value, gold = _typed(extracted, answer_type), _typed(item.gold, answer_type)
        return value is not None and value == gold

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall, each task, each skill."""
        return mean_by(rows, lambda row: [row.item.category, *literal_list(row.item.fields.get("skills", ""))])


BENCHMARKS = (MathVista(),)
