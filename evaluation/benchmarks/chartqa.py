"""ChartQA (test). Ahmed Masry et al.: "ChartQA: A Benchmark for Question Answering about Charts with Visual and Logical
Reasoning", Findings of ACL 2022.

https://arxiv.org/abs/2203.10244 · 2,500 items, splits test_human and test_augmented, read from VLMEvalKit's
ChartQA_TEST.tsv.

Relaxed accuracy: numbers within 5 % of the gold value, else equal text without regard to case. Known to surprise: "10%" is
0.1; years within 5 % are right (2019 for 2018); "1,000" is no number; a gold value of 0 is compared as text.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/vqa_eval.py. The fork takes the 5 % of the prediction and asks its
judge about texts that differ, and about any text if the prediction is 0; two numbers are final. So the published 88.4 is no
strict relaxed accuracy (DeepEyesV2 0373e6e, vqa_eval.py, relaxed_correctness_judge).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, literal_list, need, read_tsv

_TOLERANCE_FRAC = 0.05


def relaxed_equal(target: str, answer: str) -> bool:
    """Within 5 % of the target if both are numbers and the target is not 0; else equal without regard to case."""
    near = within_tolerance(target, answer)
    return answer.lower() == target.lower() if near is None else near


def within_tolerance(target: str, answer: str) -> bool | None:
    """Whether two numbers are within 5 % of the target; None if one is no number, or the target is 0."""
    target_value, value = _number(target), _number(answer)
    if value is None or not target_value:
        return None
    return abs(value - target_value) / abs(target_value) <= _TOLERANCE_FRAC


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


class ChartQA(Benchmark):
    """Relaxed accuracy."""

    name = "chartqa"
    title = "ChartQA"
    num_items = 2500
    files = {"ChartQA_TEST.tsv": "c902e0aa9be5582a7aad6dcf52734b42"}
    suite = "perception"

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(read_tsv(path, required=("image", "question", "answer", "split")), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer")
        return Item(
            item_id=row.values["index"],
            question=f"{row.values['question']}\nAnswer the question using a single word or phrase.",
            gold=row.values["answer"],
            category=row.values.get("split", ""),
            fields={"question": row.values["question"]},
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Against each gold answer; the best counts."""
        answer, golds = prediction.text.strip(), literal_list(item.gold)
        pairs = [(answer, gold) if grader.profile.tolerance_of_prediction else (gold, answer) for gold in golds]
        correct = any(relaxed_equal(*pair) for pair in pairs)
        asked = [gold for gold, pair in zip(golds, pairs, strict=True) if within_tolerance(*pair) is None]
        if not correct and asked and grader.profile.judge_has_last_word and grader.has_llm:
            return await grader.verdict(answer, asked, question=item.fields["question"], by_llm_alone=grader.parity)
        return Grade(correct=correct, decided_by="rule:relaxed", extracted=answer[:200])

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall and both splits."""
        return mean_by(rows, lambda row: [row.item.category])


BENCHMARKS = (ChartQA(),)
