"""OCRBench. Yuliang Liu et al.: "OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models", 2024.

https://arxiv.org/abs/2305.07895 · 1,000 items in ten categories, read from VLMEvalKit's OCRBench.tsv.

An answer counts if one of the gold answers is contained in it; the score is their number, of 1,000. Formulas are compared
with case and without blanks. Source: VLMEvalKit e8e78f05, vlmeval/dataset/image_vqa.py (OCRBench).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, literal_list, need, read_tsv

_FORMULAS = "Handwritten Mathematical Expression Recognition"
_GROUPS = {
    "Regular Text Recognition": "Text Recognition",
    "Irregular Text Recognition": "Text Recognition",
    "Artistic Text Recognition": "Text Recognition",
    "Handwriting Recognition": "Text Recognition",
    "Digit String Recognition": "Text Recognition",
    "Non-Semantic Text Recognition": "Text Recognition",
    "Scene Text-centric VQA": "Scene Text-centric VQA",
    "Doc-oriented VQA": "Doc-oriented VQA",
    "Key Information Extraction": "Key Information Extraction",
    _FORMULAS: _FORMULAS,
}


class OCRBench(Benchmark):
    """Contained text."""

    name = "ocrbench"
    title = "OCRBench"
    num_items = 1000
    files = {"OCRBench.tsv": "e953d98a987cc6e26ef717b61260b778"}
    suite = "perception"
    headline = "Final Score"
    points = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(read_tsv(path, required=("image", "question", "answer", "category")), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "category")
        if row.values["category"] not in _GROUPS:
            raise BenchmarkError(f"{row.place}: category {row.values['category']!r} is none of OCRBench's")
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=row.values["answer"],
            category=row.values["category"],
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Contained, after blanks and case are evened out."""
        formula = item.category == _FORMULAS

        def plain(text: str) -> str:
            text = text.strip().replace("\n", " ")
            return text.replace(" ", "") if formula else text.lower()

        said = plain(prediction.text)
        correct = any(plain(gold) in said for gold in literal_list(item.gold))
        return Grade(correct=correct, decided_by="rule:contained", extracted=prediction.text[:200])

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Numbers of right answers, and `Final Score Norm` in [0, 100] if all 1,000 were scored."""
        table = dict.fromkeys(_GROUPS.values(), 0.0)
        for row in rows:
            table[_GROUPS[row.item.category]] += row.score
        total = sum(table.values())
        norm = {"Final Score Norm": total / 10} if len(rows) == self.num_items else {}
        return {"Final Score": total} | norm | table


BENCHMARKS = (OCRBench(),)
