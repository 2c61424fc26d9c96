"""SEED-Bench-2-Plus. Bohao Li et al.: "SEED-Bench-2-Plus: Benchmarking Multimodal Large Language Models with Text-Rich
Visual Comprehension", 2024.

https://arxiv.org/abs/2404.16790 · 2,277 items (chart, map, web), read from VLMEvalKit's SEEDBench2_Plus.tsv.
"""

from __future__ import annotations

from evaluation.benchmarks._choices import ChoiceBenchmark


class SeedBench2Plus(ChoiceBenchmark):
    """Multiple choice."""

    name = "seedbench2_plus"
    title = "SEED-Bench-2-Plus"
    num_items = 2277
    files = {"SEEDBench2_Plus.tsv": "e32d3216dc4f452b0fe497a52015d1fd"}
    suite = "perception"


BENCHMARKS = (SeedBench2Plus(),)
