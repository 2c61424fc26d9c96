"""VLMEvalKit's TSV files, read as they are and streamed.

An `image` is base64; a list literal of base64 strings; or, if at most 64 characters long, the index of another row
whose image is meant. Source: VLMEvalKit e8e78f05, vlmeval/dataset/image_base.py.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.images import ImageFile
from evaluation.benchmarks import BenchmarkError

_MAX_REFERENCE_CHARS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One row, images decoded to bytes but not to pixels."""

    number: int
    """Line of data in the file, from 1."""
    values: dict[str, str]
    images: tuple[ImageFile, ...]


def read_tsv(path: Path, *, required: Sequence[str]) -> Iterator[Row]:
    """Read a file row by row.

    Raises:
        BenchmarkError: The file is missing, lacks a column, has a row of another width, or a broken image.
    """
    if not path.is_file():
        raise BenchmarkError(f"no file {path}; data/README.md says where to get it")
    csv.field_size_limit(sys.maxsize)
    references: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader((line.replace("\0", "") for line in file), delimiter="\t")
        try:
            columns = reader.fieldnames or []
            missing = [name for name in (*required, "index") if name not in columns]
            if missing:
                raise BenchmarkError(
                    f"{path} lacks the column {', '.join(missing)}; it has {', '.join(columns) or 'none'}. Is it another "
                    "benchmark's?"
                )
            for number, raw in enumerate(reader, start=1):
                if None in raw or None in raw.values():
                    raise BenchmarkError(
                        f"{path}, row {number}: {'more' if None in raw else 'fewer'} than {len(columns)} columns; was the "
                        "file cut off?"
                    )
                values = {name: (value or "").strip("\r") for name, value in raw.items()}
                images = _images(values.pop("image", ""), values, references, f"{path}, row {number}")
                yield Row(number, values, images)
        except (csv.Error, UnicodeDecodeError) as error:
            raise BenchmarkError(f"{path} is no readable TSV: {error}") from error


def _images(text: str, values: dict[str, str], references: dict[str, str], place: str) -> tuple[ImageFile, ...]:
    index = values["index"]
    if not text or text.lower() == "nan":
        return ()
    if len(text) <= _MAX_REFERENCE_CHARS and not text.startswith("["):
        if text not in references:
            raise BenchmarkError(f"{place}: image refers to row {text!r}, which did not come before it")
        text = references[text]
    else:
        references[index] = text
    if text.startswith("["):
        try:
            encoded = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise BenchmarkError(f"{place}: image starts with '[' but is no list: {error}") from error
    else:
        encoded = [text]
    return tuple(_decode(item, place) for item in encoded)


def _decode(text: object, place: str) -> ImageFile:
    try:
        data = base64.b64decode(str(text), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BenchmarkError(f"{place}: the image is no base64 ({error}); was the file cut off?") from error
    return ImageFile(data)
