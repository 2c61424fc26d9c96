"""Benchmarks that come as parquet or JSON: rows one after another, images as bytes, base64 or files beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from agent.images import ImageFile
from evaluation.errors import BenchmarkError
from evaluation.tables.images import listed, read_image

_BATCH_ROWS = 16
_ID_COLUMNS = ("index", "id", "data_id", "sample_id")
ForeignRow = dict[str, Any]
"""A row of a published file: its names and types are others' to choose, and are looked at where it becomes an `Item`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a file."""

    number: int
    """From 1; of all files, where there are several."""
    values: ForeignRow
    place: str
    """File and row, for messages."""
    folder: Path
    """Where the file lies."""
    problem: str = ""
    """Why it cannot be read, if it cannot."""

    @property
    def item_id(self) -> str:
        """What the row is called while it is no item yet."""
        for name in _ID_COLUMNS:
            if isinstance(found := self.values.get(name), str | int | float) and str(found):
                return item_name(found)
        return Path(self.place).name


class _Written(float):
    """A number of a JSON file that is shown as it is written there: `3.10` is no `3.1`."""

    text: str

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def read_rows(path: Path, *, required: Sequence[str]) -> Iterator[Entry]:
    """Rows of a .parquet, .json or .jsonl file, or of all parquet files in a folder.

    A line that is no JSON, or a row that lacks one of `required`, is an entry with a problem.

    Raises:
        BenchmarkError: The file is missing or broken.
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
            if not isinstance(row, dict):
                problem = row if isinstance(row, str) else f"it is no object but {row!r:.80}"
                yield Entry(number, {}, place, file.parent, problem)
                continue
            missing = [name for name in required if row.get(name) is None]
            absent = [name for name in missing if name not in row]
            problem = f"{', '.join(missing)} is null" if missing else ""
            if absent:
                has = ", ".join(sorted(row)) or "nothing"
                problem = f"it has no {', '.join(absent)}; it has {has}. Is it another benchmark's?"
            yield Entry(number, row, place, file.parent, problem)


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


def _json(path: Path) -> Iterator[Any]:
    """Rows, and texts that say why a line is none."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        rows = [_line(line) for line in data.split(b"\n") if line.strip()] if path.suffix == ".jsonl" else _loaded(data)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(rows, list) or (rows and not any(isinstance(row, dict) for row in rows)):
        raise BenchmarkError(f"{path} is no list of objects")
    yield from rows


def _loaded(data: bytes) -> Any:
    return json.loads(data, parse_float=_Written, parse_constant=_Written)


def _line(data: bytes) -> Any:
    try:
        row = _loaded(data)
    except ValueError as error:
        return f"the line is no JSON: {error}"
    return row if isinstance(row, dict) else f"the line is no object but {row!r:.80}"


def image_reader(value: Any, folder: Path, place: str) -> Callable[[], tuple[ImageFile, ...]]:
    """Reads the image or images of a cell when they are wanted.

    Args:
        value: What `evaluation.tables.images.read_image` reads, or a list of these, perhaps a list literal; None is no
            image.
        folder: Where paths start.
        place: For messages.

    Raises:
        BenchmarkError: It begins as a list literal and is none.
    """
    if isinstance(value, str):
        value = listed(value, place)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return partial(_read_all, values, folder, place)


def _read_all(values: Sequence[Any], folder: Path, place: str) -> tuple[ImageFile, ...]:
    return tuple(read_image(value, folder, place) for value in values)


def item_name(value: object) -> str:
    """An index as a text. A table that once had a gap holds `0.0`, which is row 0."""
    text = str(value).strip()
    whole, dot, zeros = text.partition(".")
    return whole if dot and zeros and not zeros.strip("0") and whole.removeprefix("-").isdecimal() else text


def texts(value: Any) -> list[str]:
    """A text as it is written, or those of a list; empty ones are left out."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [str(entry) for entry in values if entry is not None and str(entry).strip()]


def json_texts(value: Any) -> list[str]:
    """`texts` of a list, which a benchmark may also write as JSON; any other text is one."""
    if isinstance(value, str):
        try:
            found = _loaded(value.encode("utf-8", "surrogatepass"))
        except ValueError:
            found = None
        value = found if isinstance(found, list) else value
    return texts(value)
