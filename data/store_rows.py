"""RL rows as the sets of a store have them: images by name, one schema for all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from agent.files import whole_file

ROW_GROUP = 1024


def schema() -> Any:
    """The one schema (pyarrow) of a store's RL rows."""
    import pyarrow

    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    return pyarrow.schema([
        ("data_source", text),
        ("prompt", pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))),
        ("images", texts),
        ("image_sizes", pyarrow.list_(pyarrow.list_(pyarrow.int32()))),
        ("reward_model", pyarrow.struct([("style", text), ("ground_truth", texts)])),
        *((name, text) for name in ("extra_info_json", "source", "licence", "group")),
    ])  # fmt: skip


def record(
    *,
    data_source: str,
    messages: Sequence[Mapping[str, str]],
    images: Sequence[str],
    image_sizes: Sequence[Sequence[int]],
    gold: Sequence[str],
    extra: Mapping[str, Any],
    source: str,
    licence: str,
    group: str,
) -> dict[str, Any]:
    """One row.

    Args:
        data_source: Name of its reward.
        messages: `{role, content}`.
        images: Names in the store, in the order of their placeholders.
        image_sizes: (width_px, height_px) of each, upright.
        gold: Accepted answers.
        extra: Kept as JSON, so that all files have one schema.
        source: Where it comes from.
        licence: Of the source.
        group: For mixing.
    """
    return {
        "data_source": data_source,
        "prompt": [dict(message) for message in messages],
        "images": list(images),
        "image_sizes": [list(size) for size in image_sizes],
        "reward_model": {"style": "rule", "ground_truth": list(gold)},
        "extra_info_json": json.dumps(dict(extra), ensure_ascii=False, sort_keys=True, default=str),
        "source": source,
        "licence": licence,
        "group": group,
    }


def write_rows(path: Path, records: Iterable[Mapping[str, Any]], wanted: Any) -> None:
    """Write a parquet file, complete or absent; a group of rows is held at a time.

    Args:
        path: Replaced if it is there.
        records: Values by column.
        wanted: A schema of pyarrow.

    Raises:
        NotWritten: There is no room.
    """
    import pyarrow
    import pyarrow.parquet

    with whole_file(path, durable=True) as file, pyarrow.parquet.ParquetWriter(file, wanted, compression="zstd") as writer:
        rows = iter(records)
        while batch := list(islice(rows, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(batch, wanted), row_group_size=ROW_GROUP)
