"""MMSearch, the items with an image. Dongzhi Jiang et al.: "MMSearch: Benchmarking the Potential of Large Models as
Multi-modal Search Engines", ICLR 2025.

https://arxiv.org/abs/2409.12959 · data https://huggingface.co/datasets/CaraJ/MMSearch · 300 items, 171 of them with an
image; the published 63.7 is 109/171. Read from the `end2end` parquet or from MMSearch-R1's form. Scored by judge accuracy,
as MMSearch-R1 does; the three-stage F1 of the original is another protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Item
from evaluation.benchmarks._search import SearchBenchmark
from evaluation.tables.rows import read_rows, strings


class MMSearch(SearchBenchmark):
    """Judge accuracy over the visual subset."""

    name = "mmsearch"
    title = "MMSearch"
    num_items = 171
    files = {"end2end.parquet": ""}
    note = "the 171 items with an image"

    def load(self, path: Path) -> Iterator[Item]:
        """Read either form; items without an image are left out.

        Raises:
            BenchmarkError: A column is missing, or a row is broken.
        """
        rows = read_rows(path, required=())
        first = next(rows, None)
        if first is not None and "prompt" in first[1]:
            yield from super().load(path)
            return
        for place, row in read_rows(path, required=("query", "gt_answer")):
            if row.get("query_image") is None:
                continue
            yield self.item(
                item_id=str(row.get("sample_id") or place.rpartition(" ")[2]),
                question=str(row["query"]),
                golds=[str(row["gt_answer"]), *strings(row.get("alternative_gt_answers"))],
                category=str(row.get("area") or ""),
                image=row["query_image"],
                folder=path.parent,
                place=place,
            )


BENCHMARKS = (MMSearch(),)
