"""VLMEvalKit's TSV files, read as they are and streamed.

An `image` is base64; a list literal of base64 strings; or, if at most 64 characters long, the index of another row
whose image is meant. Source: VLMEvalKit e8e78f05, vlmeval/dataset/image_base.py.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.images import ImageFile
from evaluation.errors import BenchmarkError

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
"""Cells that the reference's reader (pandas) takes for nothing, an option "NA" among them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row; its images are decoded when they are asked for."""

    number: int
    """Line of data in the file, from 1."""
    values: dict[str, str]
    """Without missing cells and without images."""
    image: str
    place: str

    def images(self) -> tuple[ImageFile, ...]:
        """Bytes of the images, pixels not decoded.

        Raises:
            BenchmarkError: They are no base64.
        """
        text = self.image
        if not text:
            return ()
        if not text.startswith("["):
            return (_decode(text, self.place),)
        try:
            encoded = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise BenchmarkError(f"{self.place}: image starts with '[' but is no list: {error}") from error
        return tuple(_decode(item, self.place) for item in encoded)

    def choices(self, letters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ") -> dict[str, str]:
        """Letter -> text of the options that the row has."""
        return {letter: self.values[letter] for letter in letters if letter in self.values}


def read_tsv(path: Path, *, required: Sequence[str]) -> Iterator[Row]:
    """Read a file row by row; it is read twice, so that only images which other rows refer to are kept.

    Raises:
        BenchmarkError: The file is missing, lacks a column, has a row of another width, or refers to a row that is not
        there.
    """
    wanted = {text for _, values in raw_rows(path, required) if _is_reference(text := values.get("image", ""))}
    kept: dict[str, str] = {}
    waiting: list[tuple[int, dict[str, str], str]] = []
    for number, values in raw_rows(path, required):
        text = values.pop("image", "")
        text = "" if text in MISSING else text
        if _is_reference(text) and text not in kept:
            waiting.append((number, values, text))  # refers to a row below it
            continue
        image = kept[text] if _is_reference(text) else text
        if values["index"] in wanted:
            kept[values["index"]] = image
        yield _row(path, number, values, image)
    for number, values, text in waiting:
        if text not in kept:
            raise BenchmarkError(f"{path}, row {number}: image refers to row {text!r}, which is not in the file")
        yield _row(path, number, values, kept[text])


def _row(path: Path, number: int, values: dict[str, str], image: str) -> Row:
    return Row(
        number,
        {name: value for name, value in values.items() if value not in MISSING},
        image,
        f"{path}, row {number}",
    )


def _is_reference(text: str) -> bool:
    return 0 < len(text) <= _MAX_REFERENCE_CHARS and not text.startswith("[") and text not in MISSING


def raw_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line of data from 1, cells as they stand) of each row.

    Raises:
        BenchmarkError: As `read_tsv`, but for images, which are not looked at.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    if not path.is_file():
        raise BenchmarkError(f"no file {path}; data/README.md says where to get it")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader((line.replace("\0", "") for line in file), delimiter="\t")
        try:
            columns = reader.fieldnames or []
            missing = [name for name in (*required, "index") if name not in columns]
            if missing:
                raise BenchmarkError(
                    f"{path} lacks the column {', '.join(missing)}; it has {', '.join(columns) or 'none'}. Is it another "
                    "benchmark's?"
                )
            seen: set[str] = set()
            for number, raw in enumerate(reader, start=1):
                if None in raw or None in raw.values():
                    raise BenchmarkError(
                        f"{path}, row {number}: {'more' if None in raw else 'fewer'} than {len(columns)} columns; was the "
                        "file cut off?"
                    )
                values = {name: value.strip("\r") for name, value in raw.items()}
                if values["index"] in seen:
                    raise BenchmarkError(f"{path}, row {number}: the index {values['index']!r} was there before")
                seen.add(values["index"])
                yield number, values
        except (csv.Error, UnicodeDecodeError) as error:
            raise BenchmarkError(f"{path} is no readable TSV: {error}") from error


def _decode(item: object, place: str) -> ImageFile:
    try:
        data = base64.b64decode(str(item), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BenchmarkError(f"{place}: the image is no base64 ({error}); was the file cut off?") from error
    return ImageFile(data)


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
