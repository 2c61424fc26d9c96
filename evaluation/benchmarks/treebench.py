"""TreeBench. Haochen Wang et al.: "Traceable Evidence Enhanced Visual Grounded Reasoning: Evaluation and Methodology", 2025.

https://arxiv.org/abs/2507.07999 · data https://huggingface.co/datasets/HaochenWang/TreeBench · 405 items, ten sub-tasks of
perception and reasoning, read from TreeBench.tsv (no checksum is published).

An answer's first capital letter counts, whatever it is part of. mIoU compares `<box>[x1,y1,x2,y2]</box>` in the thinking
with `target_instances`: the mean over target boxes of the best overlap. Source: VLMEvalKit e8e78f05, image_mcq.py
(TreeBench).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from evaluation.benchmarks import Item, Scored, mean_by
from evaluation.benchmarks._choices import ChoiceBenchmark
from evaluation.errors import BenchmarkError
from evaluation.scoring.choices import LETTERS, grade_first_letter
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, as_letter, need, pick

_THINKING = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_BOX = re.compile(r"<box>(.*?)</box>", re.DOTALL)
_COORDINATES = re.compile(r"\[(\d+),(\d+),(\d+),(\d+)\]")
Box = tuple[float, float, float, float]


def boxes_in(text: str) -> list[Box]:
    """Boxes with an area, as the reference reads them: no blanks inside the brackets."""
    found = []
    for content in _BOX.findall(text):
        match = _COORDINATES.match(content.strip())
        if match is not None:
            x1, y1, x2, y2 = map(float, match.groups())
            if x1 < x2 and y1 < y2:
                found.append((x1, y1, x2, y2))
    return found


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


def mean_best_overlap(found: Sequence[Box], targets: Sequence[Box]) -> float:
    """Mean over the targets of the best overlap. Without targets, 1 if any box was given."""
    if not found:
        return 0.0
    if not targets:
        return 1.0
    return sum(max((overlap(target, box) for box in found), default=0.0) for target in targets) / len(targets)


class TreeBench(ChoiceBenchmark):
    """Multiple choice by first letter, and mIoU."""

    name = "treebench"
    title = "TreeBench"
    num_items = 405
    files = {"TreeBench.tsv": ""}
    suite = "perception"
    columns = ("image", "question", "answer", "category", "target_instances")
    kept = ("target_instances",)
    ending = "Answer with the correct option's letter directly. \n"

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "category", "target_instances")
        try:
            ast.literal_eval(row.values["target_instances"])
        except (ValueError, SyntaxError) as error:
            raise BenchmarkError(f"{row.place}: target_instances is no list of boxes: {error}") from error
        if row.choices("ABCDE"):
            return super()._item(row)
        gold = as_letter(row.values["answer"])
        if gold not in LETTERS:
            raise BenchmarkError(f"{row.place}: answer {row.values['answer']!r} is no letter from A to E")
        # In OCR tasks, and throughout newer files, the options stand in one column of their own, or in the question.
        options = row.values.get("multi-choice options", "")
        question = f"Question: {row.values['question']}\n" + (f"{options}\n{self.ending}" if options else "")
        return Item(
            item_id=row.values["index"],
            question=question,
            gold=gold,
            category=row.values["category"],
            fields=pick(row, "question", "target_instances"),
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """First letter; boxes are looked for in the thinking, or in all that was written if there is none."""
        graded = grade_first_letter(prediction.text, item.gold, grader.profile)
        written = prediction.text if grader.profile.boxes_in_answer_only else prediction.full or prediction.text
        thinking = _THINKING.search(written)
        targets = [tuple(map(float, box)) for box in ast.literal_eval(item.fields["target_instances"])]
        iou = mean_best_overlap(boxes_in(thinking[1] if thinking is not None else written), targets)  # type: ignore[arg-type]
        return Grade(correct=graded.correct, decided_by=graded.decided_by, extracted=graded.extracted, extra={"iou": iou})

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall, each task, and mIoU."""
        table = mean_by(rows, lambda row: [row.item.category])
        return table | {"mIoU": sum(float(row.grade.extra["iou"]) for row in rows) / len(rows)} if rows else {}


BENCHMARKS = (TreeBench(),)
