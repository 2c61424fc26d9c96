"""Benchmarks that come as parquet or JSON: rows one after another, images as bytes, base64 or files beside them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.images import ImageFile
from evaluation.errors import BenchmarkError

_BATCH_ROWS = 16
ForeignRow = dict[str, Any]
"""A row of a published file: its names and types are others' to choose, and are looked at where it becomes an `Item`."""


def read_rows(path: Path, *, required: Sequence[str]) -> Iterator[tuple[str, ForeignRow]]:
    """(place for messages, row) of a .parquet, .json or .jsonl file, or of all parquet files in a folder.

    Raises:
        BenchmarkError: The file is missing, broken, or lacks a column.
    """
    if not path.exists():
        raise BenchmarkError(f"no file {path}; data/README.md says where to get it")
    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files:
        raise BenchmarkError(f"{path} holds no parquet files")
    number = 0
    for file in files:
        for row in _parquet(file) if file.suffix == ".parquet" else _json(file):
            number += 1
            place = f"{file}, row {number}"
            missing = [name for name in required if row.get(name) is None]
            if missing:
                raise BenchmarkError(
                    f"{place} has no {', '.join(missing)}; it has {', '.join(sorted(row)) or 'nothing'}. Is it "
                    "another benchmark's?"
                )
            yield place, row


def _parquet(path: Path) -> Iterator[ForeignRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # Row group by row group: a column of images may hold more than 2 GiB, which cannot be read as a whole.
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BenchmarkError(f"{path} is no readable parquet file: {error}") from error


def _json(path: Path) -> Iterator[ForeignRow]:
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.split("\n") if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
        )
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path} is no list of objects")
    yield from rows


def image_reader(value: Any, folder: Path, place: str) -> Callable[[], tuple[ImageFile, ...]]:
    """Reads the image or images of a cell when they are wanted.

    Args:
        value: Bytes, `{"bytes", "path"}`, base64, a path below `folder`, or a list of these; None is no image.
        folder: Where paths start.
        place: For messages.
    """
    values = value if isinstance(value, list) else [] if value is None or value == "" else [value]
    return partial(_read_all, values, folder, place)


def _read_all(values: Sequence[Any], folder: Path, place: str) -> tuple[ImageFile, ...]:
    return tuple(_read(value, folder, place) for value in values)


def _read(value: Any, folder: Path, place: str) -> ImageFile:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return ImageFile(value)
    if not isinstance(value, str):
        raise BenchmarkError(f"{place}: an image is {type(value).__name__}; expected bytes, base64 or a path")
    if len(value) <= 1024 and (path := folder / value).is_file():
        return ImageFile(path.read_bytes())
    try:
        return ImageFile(base64.b64decode(value.partition("base64,")[2] or value, validate=True))
    except (ValueError, binascii.Error) as error:
        raise BenchmarkError(f"{place}: no image file {value[:80]!r} in {folder}, and it is no base64") from error


def strings(value: Any) -> list[str]:
    """A list of texts out of a list, or out of JSON that holds one; empty texts are left out."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [str(entry) for entry in values if str(entry).strip()]
