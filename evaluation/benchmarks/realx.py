"""RealX-Bench, the public part. Jack Hong et al.: "DeepEyesV2: Toward Agentic Multimodal Model", 2025, section 4.

https://arxiv.org/abs/2511.05271 · data https://huggingface.co/datasets/glowol/RealXBench (Apache-2.0) · **194 of the 300
items are public**; the paper's numbers are over 300, and a score over 194 must not stand beside them. JSON or parquet with
`query`, `answer` (alternatives joined by " or "), `image`, and flags `perception`, `search`, `reason`; Integration is all
three. No scoring code is published: judge accuracy here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Item, Scored, items_of
from evaluation.benchmarks._search import SearchBenchmark
from evaluation.scoring.profiles import Profile
from evaluation.tables.rows import Entry, item_name, read_rows

_AXES = {"perception": "Perception", "reason": "Reasoning", "search": "Search"}


class RealX(SearchBenchmark):
    """Judge accuracy, by axis."""

    name = "realx"
    title = "RealX-Bench (194 public items)"
    num_items = 194
    files = {"RealXBench.parquet": ""}
    note = "194-item public subset; the paper's scores are over 300 items"

    def load(self, path: Path) -> Iterator[Item]:
        """Read JSON or parquet.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        folder = path if path.is_dir() else path.parent

        def made(entry: Entry) -> Item:
            row = entry.values
            axes = [title for name, title in _AXES.items() if _flag(row.get(name))]
            if len(axes) == len(_AXES):
                axes.append("Integration")
            return self.item(
                item_id=item_name(row.get("id", entry.number)),
                question=str(row["query"]),
                golds=[part.strip() for part in str(row["answer"]).split(" or ") if part.strip()],
                category=",".join(axes),
                image=row.get("image"),
                folder=folder,
                place=entry.place,
            )

        yield from items_of(read_rows(path, required=("query", "answer")), made)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall and each axis; the axes overlap."""
        table = super().scores(rows, profile)
        by_axis: dict[str, list[float]] = {}
        for row in rows:
            for axis in filter(None, row.item.category.split(",")):
                by_axis.setdefault(axis, []).append(row.score)
        shown = {name: table[name] for name in ("Overall", "EM", "Sub-EM") if name in table}
        return shown | {axis: sum(values) / len(values) for axis, values in sorted(by_axis.items())}


def _flag(value: object) -> bool:
    return str(value).strip().lower() in ("1", "1.0", "true")


BENCHMARKS = (RealX(),)
