"""HR-Bench 4K and 8K. Wenbin Wang et al.: "Divide, Conquer and Combine: A Training-Free Framework for High-Resolution Image
Perception in Multimodal Large Language Models", AAAI 2025.

https://arxiv.org/abs/2408.15556 · data https://huggingface.co/datasets/DreamMr/HR-Bench · 200 questions, each asked four
times with its options rotated (`cycle_category` 0 to 3): 800 items a file. Categories: single, cross.

The score is the mean over the four rotations of the accuracy within each; with equal rotations that is the accuracy over
all.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/hrbench.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from evaluation.benchmarks import Scored, mean_by
from evaluation.benchmarks._choices import ChoiceBenchmark
from evaluation.scoring.profiles import Profile


class HRBench4K(ChoiceBenchmark):
    """Multiple choice, mean over rotations."""

    name = "hrbench4k"
    title = "HR-Bench 4K"
    num_items = 800
    files = {"HRBench4K.tsv": "f6b041b03d49543494b8a56d2e35be65"}
    suite = "perception"
    columns = (*ChoiceBenchmark.columns, "cycle_category")
    kept = ("cycle_category",)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Each category's mean over the rotations in which it occurs, divided by the number of rotations."""
        cycles: dict[str, list[Scored]] = defaultdict(list)
        for row in rows:
            cycles[row.item.fields.get("cycle_category", "")].append(row)
        sums: dict[str, float] = defaultdict(float)
        for members in cycles.values():
            for name, value in mean_by(members, lambda row: [row.item.category]).items():
                if name != "Macro":
                    sums[name] += value
        return {name: value / len(cycles) for name, value in sums.items()}


class HRBench8K(HRBench4K):
    """The same at 8K."""

    name = "hrbench8k"
    title = "HR-Bench 8K"
    files = {"HRBench8K.tsv": "274c9c7f89329b804a4723178a00219c"}


BENCHMARKS = (HRBench4K(), HRBench8K())
