"""Lines of files that others wrote, within bounds: one that no reader of ours could use is passed over and never held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MOST_LINE_BYTES = 16 << 20
"""A token with its log-probability takes some 30 bytes of a record: 128,000 of them have room, and the texts too."""
MOST_VALUES = 3_000_000
"""In a JSON text: `[[],[],…]` takes twenty times its bytes when it is parsed."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file."""

    start: int
    """Offset of its first byte."""
    length: int
    """In bytes, with its end."""
    text: bytes | None
    """None: it is longer than lines may be, and was passed over."""
    whole: bool
    """It ends with a line end; one that does not is still being written, or was cut off."""

    @property
    def end(self) -> int:
        """Offset of what follows it."""
        return self.start + self.length

    @property
    def problem(self) -> str:
        """What is wrong with one that was passed over."""
        return f"it has {self.length:,} bytes; at most {MOST_LINE_BYTES:,} are read"


def bounded_lines(file: IO[bytes], *, most_bytes: int = MOST_LINE_BYTES) -> Iterator[Line]:
    """The lines from where the file stands; of one that is too long no more than `most_bytes` are held at once."""
    start = file.tell()
    while text := file.readline(most_bytes + 1):
        length, is_whole, is_short = len(text), text.endswith(b"\n"), len(text) <= most_bytes
        while not is_short and not is_whole and (block := file.readline(_BLOCK)):
            length, is_whole = length + len(block), block.endswith(b"\n")
        yield Line(start, length, text if is_short else None, is_whole)
        start += length


def too_many_values(text: bytes) -> bool:
    """Whether a JSON text would take much more memory parsed than it takes as it is."""
    if len(text) <= MOST_VALUES:
        return False
    return sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES
