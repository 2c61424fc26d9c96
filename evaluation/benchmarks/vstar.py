"""V* Bench. Penghao Wu, Saining Xie: "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs", CVPR 2024.

https://arxiv.org/abs/2312.14135 · data https://huggingface.co/datasets/craigwu/vstar_bench (MIT) · 191 items, read from
VLMEvalKit's VStarBench.tsv. Categories: direct_attributes 115, relative_position 76.

The published 81.8 of DeepEyesV2-7B is no k/191, so it is a mean over the categories or over runs: micro (`Overall`) and
macro accuracy are both given.
"""

from __future__ import annotations

from evaluation.benchmarks._choices import ChoiceBenchmark


class VStar(ChoiceBenchmark):
    """Multiple choice."""

    name = "vstar"
    title = "V*"
    num_items = 191
    files = {"VStarBench.tsv": "b18854d7075574be06b631cd5f7d2d6a"}
    suite = "perception"
    note = "V* is named both as training data and as an evaluation by the paper: see `deepeyes contamination`"


BENCHMARKS = (VStar(),)
