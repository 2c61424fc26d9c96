"""VLMEvalKit's TSV files, read as they are and streamed.

An `image` is base64; a list literal of base64 strings; or, if at most 64 characters long, the index of another row
whose image is meant. Files without images name them in `image_path`. Source: VLMEvalKit e8e78f05,
vlmeval/dataset/image_base.py.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.images import ImageFile
from evaluation.errors import BenchmarkError
from evaluation.tables.images import listed, read_image
from evaluation.tables.rows import item_name

_MAX_REFERENCE_CHARS = 64
_MAX_CELL_CHARS = 2**31 - 1
"""Images stand in cells; Python's limit of 131,072 characters is for the whole process."""
MISSING = frozenset(
    [
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
"""Cells that the reference's reader (pandas) takes for nothing."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORDS = frozenset(["N/A", "NA", "NULL", "None", "n/a", "null"])
"""Those of them that somebody may have meant, and that are kept where people's texts stand."""
_TEXTS = frozenset(["question", "answer", *_LETTERS])
_KEY = re.compile(r"[\s(\[{*]*([A-Za-z])[\s)\]}*.:]*")


@dataclass(frozen=True, slots=True)
class Cells:
    """One row as it stands in the file."""

    number: int
    """Line of data in the file, from 1."""
    values: dict[str, str]
    problem: str = ""
    """Why the row cannot be read, if it cannot."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row; its images are decoded when they are asked for."""

    number: int
    """Line of data in the file, from 1."""
    values: dict[str, str]
    """Without missing cells and without images."""
    image: str
    place: str
    folder: Path
    """Where paths of images start."""
    problem: str = ""
    """Why the row cannot be read, if it cannot."""

    @property
    def item_id(self) -> str:
        """What the row is called while it is no item yet."""
        return self.values.get("index") or Path(self.place).name

    def images(self) -> tuple[ImageFile, ...]:
        """Bytes of the images, pixels not decoded.

        Raises:
            BenchmarkError: They are neither base64 nor files.
        """
        return tuple(read_image(value, self.folder, self.place) for value in listed(self.image, self.place))

    def choices(self, letters: str = _LETTERS) -> dict[str, str]:
        """Letter -> text of the options that the row has. One called None or NA is one; several are a table's filling."""
        options = {letter: self.values[letter] for letter in letters if letter in self.values}
        times = Counter(options.values())
        return {letter: text for letter, text in options.items() if times[text] == 1 or text not in MISSING}


def read_tsv(path: Path, *, required: Sequence[str]) -> Iterator[Row]:
    """Read a file row by row; it is read twice, so that only images which other rows refer to are kept.

    A row of another width, or one that refers to a row which is not there, is a row with a problem.

    Raises:
        BenchmarkError: The file is missing, lacks a column, has an index twice, or ends within quotes.
    """
    wanted = {item_name(text) for row in _cells(path, required) if _is_reference(text := row.values.get("image", ""))}
    kept: dict[str, str] = {}
    waiting: list[tuple[Cells, str]] = []
    for cells in _cells(path, required):
        text = cells.values.pop("image", "")
        text = "" if text in MISSING else text
        if _is_reference(text) and item_name(text) not in kept:
            waiting.append((cells, text))  # refers to a row below it
            continue
        image = kept[item_name(text)] if _is_reference(text) else text
        if cells.values.get("index") in wanted:
            kept[cells.values["index"]] = image
        yield _row(path, cells, image)
    for cells, text in waiting:
        row = _row(path, cells, kept.get(item_name(text), text))
        if item_name(text) not in kept:
            row = _without_reference(row)
        yield row


def _row(path: Path, cells: Cells, image: str) -> Row:
    values = {
        name: value for name, value in cells.values.items() if value not in MISSING or (name in _TEXTS and value in _WORDS)
    }
    image = image or values.get("image_path", "")
    return Row(cells.number, values, image, f"{path}, row {cells.number}", path.parent, cells.problem)


def _without_reference(row: Row) -> Row:
    """A short cell that names no row may still be a path, or a very small image."""
    try:
        row.images()
    except BenchmarkError:
        problem = (
            row.problem or f"image refers to row {row.image!r}, which is not in the file; nor is it a file in {row.folder}"
        )
        return replace(row, problem=problem)
    return row


def _is_reference(text: str) -> bool:
    return 0 < len(text) <= _MAX_REFERENCE_CHARS and not text.startswith(("[", "data:")) and text not in MISSING


def raw_rows(path: Path, required: Sequence[str], *, skip_odd: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """(line of data from 1, cells as they stand) of each row.

    Args:
        path: Of the file.
        required: Columns, besides `index`.
        skip_odd: Leave out a row that cannot be read, instead of refusing the file.

    Raises:
        BenchmarkError: As `read_tsv`, or a row cannot be read; images are not looked at.
    """
    for cells in _cells(path, required):
        if cells.problem and skip_odd:
            continue
        if cells.problem:
            raise BenchmarkError(f"{path}, row {cells.number}: {cells.problem}")
        yield cells.number, cells.values


def _cells(path: Path, required: Sequence[str]) -> Iterator[Cells]:
    csv.field_size_limit(_MAX_CELL_CHARS)
    if not path.is_file():
        raise BenchmarkError(f"no file {path}; data/README.md says where to get it")
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        reader = csv.DictReader((line.replace("\0", "") for line in file), delimiter="\t")
        try:
            columns = _columns(path, reader.fieldnames or [], required)
            seen: set[str] = set()
            for number, raw in enumerate(reader, start=1):
                cells = _checked(number, raw, len(columns))
                if cells.problem and any("\n" in value and "\t" in value for value in cells.values.values()):
                    raise BenchmarkError(
                        f"{path}, row {number} has quotes that do not end, which take in the rows down to line "
                        f"{reader.line_num}; was the file cut off? Double the quotes of a text, or take the first off"
                    )
                index = cells.values["index"]
                if index in seen:
                    raise BenchmarkError(f"{path}, row {number}: the index {index!r} was there before")
                seen |= {index} - {""}
                yield cells
        except csv.Error as error:
            raise BenchmarkError(f"{path} is no readable TSV: {error}") from error


def _columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> Sequence[str]:
    if any(not _is_text(name) for name in columns):
        raise BenchmarkError(f"{path} is no readable TSV: its first line is not UTF-8")
    also = {"image"} if "image_path" in columns else set()
    missing = [name for name in (*required, "index") if name not in columns and name not in also]
    if missing:
        raise BenchmarkError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(columns) or 'none'}. Is it another "
            "benchmark's?"
        )
    return columns


def _checked(number: int, raw: dict[str | Any, Any], width: int) -> Cells:
    values = {name: value.strip("\r") for name, value in raw.items() if name is not None and value is not None}
    values["index"] = item_name(values.get("index", ""))
    problem = ""
    if len(values) < width or None in raw:
        problem = f"{'more' if None in raw else 'fewer'} than {width} columns; was the file cut off?"
    elif not values["index"]:
        problem = "'index' is empty"
    elif odd := [name for name, value in values.items() if not _is_text(value)]:
        problem = f"{', '.join(odd)} is not UTF-8"
        values["index"] = "" if "index" in odd else values["index"]
    return Cells(number, values, problem)


def _is_text(text: str) -> bool:
    """Whether nothing in it stands for bytes that could not be decoded."""
    return text.isascii() or not any("\udc80" <= char <= "\udcff" for char in text)


def need(row: Row, *names: str) -> None:
    """Raises:
    BenchmarkError: A cell that scoring needs is empty; names the row.
    """
    for name in names:
        if name not in row.values:
            raise BenchmarkError(f"{row.place}: {name!r} is empty")


def literal_list(text: str) -> list[str]:
    """The strings of a list literal, or the text itself as the only one."""
    if text.startswith("["):
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [text]
        if isinstance(values, list | tuple):
            return [str(value) for value in values]
    return [text]


def pick(row: Row, *names: str) -> dict[str, str]:
    """Cells that scoring needs later; those that are missing are left out."""
    return {name: row.values[name] for name in names if name in row.values}


def as_letter(key: str) -> str:
    """An answer key such as `a`, `(A)` or `A.` as its capital letter; any other text as it stands."""
    found = _KEY.fullmatch(key)
    return found[1].upper() if found is not None else key
