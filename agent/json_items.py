"""The items of a JSON file one by one, in the forms in which people publish conversations; a file is never held whole.

A list or JSON lines (also objects that are written over several lines), with or without a byte order mark, with commas too
many. What is mended on the way is named with the item; one that cannot be read takes none of the others with it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from agent.lines import bounded_lines, too_many_values

MOST_ITEM_BYTES = 64 << 20
"""One conversation of a training set takes some 20 KB."""
TRAILING_COMMA = "a comma behind the last element"
MISSING_COMMA = "no comma before it"
BYTE_ORDER_MARK = "a byte order mark"
JSON_LINES = "JSON lines in place of a list"
_BLOCK = 1 << 20
_TOKEN = re.compile(rb'["{}\[\]]')
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BETWEEN = re.compile(rb"[\s,]*+")
_SCALAR_END = re.compile(rb"[\s,\]}]")
_COMMA = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")|,(?=\s*[}\]])', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"


@dataclass(frozen=True, slots=True)
class JsonItem:
    """One element."""

    number: int
    """From 0."""
    value: Any
    problem: str = ""
    """Why there is no value."""
    mended: tuple[str, ...] = ()
    """What strict readers would stumble over; of a byte order mark cold start does not."""


def json_items(path: Path) -> Iterator[JsonItem]:
    """Read a file; the last item may be the problem with which it ends.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(3)
        if begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            yield JsonItem(0, None, "it is written in UTF-16; expected UTF-8: `iconv -f utf-16 -t utf-8` makes that of it")
            return
        mark = begin == codecs.BOM_UTF8
        start = 3 if mark else 0
        file.seek(start)
        first = file.read(1 << 16)
        file.seek(start)
        items = _lines(file) if _has_lines(path, first) else _values(file)
        for item in items:
            yield replace(item, mended=(*item.mended, BYTE_ORDER_MARK)) if mark else item


def _has_lines(path: Path, first: bytes) -> bool:
    """Whether each line is a value: then a broken one ends with its line."""
    if not first.lstrip().startswith(b"{"):
        return path.suffix.lower() in (".jsonl", ".ndjson")
    line, ending, _ = first.lstrip().partition(b"\n")
    try:
        json.loads(line)
    except ValueError:
        return path.suffix.lower() in (".jsonl", ".ndjson") and not ending
    return True


def _lines(file: IO[bytes]) -> Iterator[JsonItem]:
    number = 0
    for line in bounded_lines(file):
        if line.text is None:
            yield JsonItem(number, None, line.problem)
        elif text := line.text.strip().rstrip(b","):
            found = _item(number, text)
            yield replace(found, mended=(JSON_LINES, *found.mended))
        else:
            continue
        number += 1


def _values(file: IO[bytes]) -> Iterator[JsonItem]:
    """Elements of a list, or values one after the other."""
    reader = _Reader(file)
    opening = reader.next_byte()
    is_list = opening == b"["
    notes = (JSON_LINES,) if opening and not is_list else ()
    if is_list:
        reader.skip()
    waiting: JsonItem | None = None
    number = 0
    while byte := reader.next_byte():
        had_comma, reader.passed_comma = reader.passed_comma, False
        if waiting is not None:
            ends_with_comma = is_list and byte == b"]" and had_comma
            yield replace(waiting, mended=(*waiting.mended, TRAILING_COMMA)) if ends_with_comma else waiting
        if is_list and byte == b"]":
            if (rest := reader.behind()) is not None:
                yield JsonItem(number, None, rest)
            return
        text, problem = reader.value()
        if problem:
            yield JsonItem(number, None, problem, notes)
            return
        found = _item(number, text)
        missing = (MISSING_COMMA,) if is_list and number and not had_comma else ()
        waiting = replace(found, mended=(*notes, *missing, *found.mended))
        number += 1
    if waiting is not None:
        yield waiting
    if is_list:
        yield JsonItem(number, None, f"the list is not closed after {number:,} elements; was its download cut off?")


def _item(number: int, text: bytes) -> JsonItem:
    if too_many_values(text):
        return JsonItem(number, None, "it holds more values than are read of one element")
    try:
        return JsonItem(number, json.loads(text.decode()))
    except UnicodeDecodeError as error:
        told = f"byte {text[error.start]:#x} at {error.start} of it is no UTF-8; convert the file, as with `iconv -t utf-8`"
        return JsonItem(number, None, told)
    except (ValueError, RecursionError) as error:
        told = f"it is no JSON ({error})"
    mended = _COMMA.sub(lambda match: match[1] or b"", text)
    try:
        return JsonItem(number, json.loads(mended), "", (TRAILING_COMMA,))
    except (ValueError, RecursionError):
        return JsonItem(number, None, told)


class _Reader:
    """The bytes from where a file stands, of which no more than one value is held."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = b""
        self._at = 0
        self.passed_comma = False

    def next_byte(self) -> bytes:
        """The first byte of what comes next, behind blanks and commas; empty at the end."""
        while True:
            match = _BETWEEN.match(self._held, self._at)
            end = match.end() if match else self._at
            self.passed_comma = self.passed_comma or b"," in self._held[self._at : end]
            self._at = end
            if self._at < len(self._held):
                return self._held[self._at : self._at + 1]
            if not self._more():
                return b""

    def skip(self) -> None:
        """Pass over one byte."""
        self._at += 1

    def behind(self) -> str | None:
        """What is wrong with what follows the end of the list, if anything does."""
        self.skip()
        byte = self.next_byte()
        return f"something follows the end of the list: {self._held[self._at : self._at + 40]!r}" if byte else None

    def value(self) -> tuple[bytes, str]:
        """(the text of the value that begins here, what is wrong with it)."""
        depth, place = 0, self._at
        while True:
            token = _TOKEN.search(self._held, place)
            if depth == 0 and self._held[self._at] not in b'"{[':
                end = _SCALAR_END.search(self._held, self._at)
                if end is not None or not self._more():
                    return self._taken(end.start() if end is not None else len(self._held)), ""
                place = self._at
                continue
            if token is None:
                place = len(self._held) - self._at
                if problem := self._grow():
                    return b"", problem
                continue
            if token[0] == b'"':
                text = _TEXT.match(self._held, token.start())
                if text is None:
                    place = token.start() - self._at
                    if problem := self._grow():
                        return b"", problem
                    continue
                place = text.end()
            else:
                depth += 1 if token[0] in (b"{", b"[") else -1
                place = token.end()
            if depth <= 0:
                return self._taken(place), ""

    def _taken(self, end: int) -> bytes:
        text, self._at = self._held[self._at : end], max(end, self._at + 1)
        return text

    def _grow(self) -> str:
        """Read on; what speaks against it."""
        held = len(self._held) - self._at
        if held > MOST_ITEM_BYTES:
            return f"it has more than {MOST_ITEM_BYTES:,} bytes, and what follows is not read; is a quotation mark missing?"
        return "" if self._more() else f"the file ends inside it, after {held:,} bytes; was its download cut off?"

    def _more(self) -> bool:
        block = self._file.read(max(_BLOCK, len(self._held) - self._at))
        self._held, self._at = self._held[self._at :] + block, 0
        return bool(block)
