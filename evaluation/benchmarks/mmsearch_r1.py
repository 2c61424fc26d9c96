"""FVQA-test and the InfoSeek subset of MMSearch-R1. Jinming Wu et al.: "MMSearch-R1: Incentivizing LMMs to Search", 2025.

https://arxiv.org/abs/2506.20670 · data https://huggingface.co/datasets/lmms-lab/FVQA · FVQA-test: 1,800 items (600 made
automatically, 600 of InfoSeek, 600 written by hand); InfoSeek: 2,000 items. Parquet in verl's form. The rows "Qwen2.5-VL +
search" and "MMSearch-R1" of the DeepEyesV2 paper were copied from that work, which searched with other means: no
like-for-like comparison.
"""

from __future__ import annotations

from evaluation.benchmarks._search import SearchBenchmark


class FVQA(SearchBenchmark):
    """Judge accuracy."""

    name = "fvqa"
    title = "FVQA-test"
    num_items = 1800
    files = {"fvqa_test.parquet": ""}


class InfoSeek(SearchBenchmark):
    """Judge accuracy."""

    name = "infoseek"
    title = "InfoSeek"
    num_items = 2000
    files = {"infoseek_sub_2k.parquet": ""}


BENCHMARKS = (FVQA(), InfoSeek())
