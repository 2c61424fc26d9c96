"""MMSearch, the items with an image. Dongzhi Jiang et al.: "MMSearch: Benchmarking the Potential of Large Models as
Multi-modal Search Engines", ICLR 2025.

https://arxiv.org/abs/2409.12959 · data https://huggingface.co/datasets/CaraJ/MMSearch · 300 items, 171 of them with an
image; the published 63.7 is 109/171. Read from the `end2end` parquet or from MMSearch-R1's form. Scored by judge accuracy,
as MMSearch-R1 does; the three-stage F1 of the original is another protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Item, items_of
from evaluation.benchmarks._search import SearchBenchmark
from evaluation.tables.rows import Entry, item_name, json_texts, read_rows, texts


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
            BenchmarkError: A column is missing, or no row can be read.
        """
        rows = read_rows(path, required=())
        first = next((row for row in rows if row.values), None)
        if first is not None and "prompt" in first.values:
            yield from super().load(path)
            return

        def made(entry: Entry) -> Item:
            row = entry.values
            return self.item(
                item_id=item_name(row.get("sample_id") or entry.number),
                question=str(row["query"]),
                golds=texts(row["gt_answer"]) + json_texts(row.get("alternative_gt_answers")),
                category=str(row.get("area") or ""),
                image=row["query_image"],
                folder=path.parent,
                place=entry.place,
            )

        rows = read_rows(path, required=("query", "gt_answer"))
        yield from items_of((row for row in rows if row.problem or row.values.get("query_image") is not None), made)


BENCHMARKS = (MMSearch(),)
