"""SimpleVQA. Xianfu Cheng et al.: "SimpleVQA: Multimodal Factuality Evaluation for Multimodal Large Language Models", ICCV
2025.

https://arxiv.org/abs/2502.13059 · 2,025 items, 1,013 of them in English (the published 59.4 is 602/1013), read from
VLMEvalKit's SimpleVQA.tsv or the parquet with a base64 image. An answer is right, wrong, or not attempted; F1 is the
harmonic mean of accuracy over all and over those attempted. Source: VLMEvalKit e8e78f05,
vlmeval/dataset/utils/simplevqa.py. There the judge reads Chinese, and a verdict with a full stop falls through; here it
chooses one of three words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.benchmarks import Item, Scored, items_of
from evaluation.benchmarks._search import SearchBenchmark
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.rows import Entry, item_name, read_rows, texts
from evaluation.tables.tsv import Row, need, read_tsv
from judge.rules import Rules

_WORDS = ("CORRECT", "INCORRECT", "NOT_ATTEMPTED")
_RULES = Rules()


class SimpleVQA(SearchBenchmark):
    """Right, wrong, or not attempted."""

    name = "simplevqa"
    title = "SimpleVQA"
    num_items = 2025
    files = {"SimpleVQA.tsv": "e3ce3c11df59a2a15d37489a8b245a87"}
    note = "the paper's 1,013 items are the English ones: compare the category EN"

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV, or parquet.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        if path.suffix == ".tsv":
            yield from items_of(read_tsv(path, required=("image", "question", "answer")), self._of_row)
        else:
            rows = read_rows(path, required=("question", "answer"))
            yield from items_of(rows, lambda entry: self._of_entry(entry, path.parent))

    def _of_row(self, row: Row) -> Item:
        need(row, "question", "answer")
        item = self.item(
            item_id=row.values["index"],
            question=row.values["question"],
            golds=[row.values["answer"]],
            category=row.values.get("language", ""),
            image=None,
            folder=row.folder,
            place=row.place,
        )
        return replace(item, read_images=row.images)

    def _of_entry(self, entry: Entry, folder: Path) -> Item:
        return self.item(
            item_id=item_name(entry.values.get("data_id", entry.number)),
            question=str(entry.values["question"]),
            golds=texts(entry.values["answer"]),
            category=str(entry.values.get("language") or ""),
            image=entry.values.get("image"),
            folder=folder,
            place=entry.place,
        )

    async def judged(self, item: Item, prediction: Prediction, grader: Grader, golds: Sequence[str]) -> Grade:
        """Rules say right; the rest is the judge's."""
        by_rule = _RULES.judge(prediction.text, golds, question=item.question)
        if by_rule.correct or not prediction.text.strip():
            said = "CORRECT" if by_rule.correct else "NOT_ATTEMPTED"
            return Grade(
                correct=bool(by_rule.correct),
                decided_by=by_rule.decided_by,
                extracted=prediction.text[:200],
                extra={"attempt": said},
            )
        if not grader.has_llm:
            return grader.no_llm()
        asked = await grader.ask(
            "attempted",
            str,
            reader="attempted",
            choices=_WORDS,
            question=item.question,
            gold=" or ".join(golds),
            answer=prediction.text,
        )
        if asked.value is None:
            return grader.undecided(asked)
        graded = grader.by_judge(asked.value == "CORRECT", prediction.text[:200], asked)
        return Grade(
            correct=graded.correct,
            decided_by=graded.decided_by,
            extracted=graded.extracted,
            extra={"attempt": asked.value},
            judge_tokens=graded.judge_tokens,
        )

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Accuracy, attempts, accuracy of those attempted, F1."""
        table = super().scores(rows, profile)
        if not table:
            return table
        attempted = sum(row.grade.extra.get("attempt") != "NOT_ATTEMPTED" for row in rows) / len(rows)
        correct = table["Overall"]
        of_attempted = correct / attempted if attempted else 0.0
        f1 = 2 * of_attempted * correct / (of_attempted + correct) if correct else 0.0
        return table | {"Attempted": attempted, "Accuracy of attempted": of_attempted, "F1": f1}


BENCHMARKS = (SimpleVQA(),)
