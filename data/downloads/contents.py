"""Is a file what its name says? Asked where no checksum is published: a login page with status 200 is no table."""

from __future__ import annotations

import codecs
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

_HEAD_BYTES = 1 << 16
_PARQUET = b"PAR1"
_PARQUET_LEAST = 12
"""Bytes of the shortest parquet file: two marks and the length of what describes it."""
_TSV_COLUMNS = ("index", "question")
"""Of VLMEvalKit's tables, one of which every benchmark has."""
_TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PAGE_NAMES = (".html", ".htm", ".md")
_SHOWN_CHARS = 60


def content_problem(path: Path, name: str) -> str | None:
    """What speaks against a file being what its name says; None if nothing does.

    Args:
        path: Of the file, which may still have another name.
        name: It is going to have.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, size - _PARQUET_LEAST))
        tail = file.read()
    if (page := page_problem(head, name)) is not None:
        return page
    for endings, check in _CHECKS:
        if name.lower().endswith(endings):
            return check(path, head, tail)
    return None


def page_problem(head: bytes, name: str) -> str | None:
    """Whether a file that ought to be data begins as a web page, or as the pointer that git keeps for a large file."""
    if name.lower().endswith(_PAGE_NAMES):
        return None
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:512].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return f"it is a web page ({_shown(head)}); is there a login or a licence in front of it?"
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that git keeps in place of a large file; take the address with /resolve/ in it"
    return None


def _tsv(path: Path, head: bytes, tail: bytes) -> str | None:  # noqa: ARG001 - one signature
    first = head.removeprefix(codecs.BOM_UTF8).split(b"\n", 1)[0]
    columns = [name.strip().strip('"') for name in first.decode("utf-8", "replace").split("\t")]
    if len(columns) < 2 or not any(name in columns for name in _TSV_COLUMNS):
        return f"its first line, {_shown(first)}, is no header of a table with the column {' or '.join(_TSV_COLUMNS)}"
    return None


def _parquet(path: Path, head: bytes, tail: bytes) -> str | None:
    size = path.stat().st_size
    if size < _PARQUET_LEAST or not head.startswith(_PARQUET):
        return f"it begins with {_shown(head)}; a parquet file begins with PAR1"
    if not tail.endswith(_PARQUET):
        return "it does not end with PAR1, as a parquet file does: it was cut off"
    described = int.from_bytes(tail[-8:-4], "little")
    return None if described + _PARQUET_LEAST <= size else "its end points outside it: it was cut off, or glued together"


def _zip(path: Path, head: bytes, tail: bytes) -> str | None:  # noqa: ARG001
    try:
        with zipfile.ZipFile(path) as archive:
            archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return f"it is no zip archive that opens ({error}): it was cut off, or is something else"
    return None


def _tar(path: Path, head: bytes, tail: bytes) -> str | None:  # noqa: ARG001
    try:
        with tarfile.open(path) as archive:
            archive.next()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        return f"it is no tar archive that opens ({error}): it was cut off, or is something else"
    return None


def _json(path: Path, head: bytes, tail: bytes) -> str | None:  # noqa: ARG001
    start, end = head.removeprefix(codecs.BOM_UTF8).lstrip(), tail.rstrip()
    if not start.startswith((b"[", b"{")):
        return f"it begins with {_shown(head)}; JSON of data begins with [ or {{"
    return None if end.endswith((b"]", b"}")) else "it does not end with ] or }, as JSON of data does: it was cut off"


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Path, bytes, bytes], str | None]], ...] = (
    ((".tsv",), _tsv),
    ((".parquet",), _parquet),
    ((".zip",), _zip),
    (_TAR_NAMES, _tar),
    ((".json", ".jsonl"), _json),
)


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
