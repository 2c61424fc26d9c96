"""What models answered, so that a run which is killed at any moment asks for nothing twice but what was under way.

Several processes, on one machine or on several that share a disk, work on the same step. Each appends to a journal of its
own and reads those of the others. Who works on an answer holds a lock on one byte of a common file, which the system gives
back when the process ends, however it ends: what a killed process had in hand is free for the next one at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_RANGE = 1 << 62


class AnswerJournal:
    """The answers of one step.

    Args:
        directory: Of the step's journal; made if it is not there.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        host = "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())[:32]
        self._directory = directory
        self._own = directory / f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"
        self._read: dict[str, int] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._locks = os.open(directory / ".locks", os.O_RDWR | os.O_CREAT, 0o644)
        self.refresh()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> dict[str, Any] | None:
        """An answer; None while nobody has it."""
        return self._entries.get(name)

    def refresh(self) -> None:
        """Read what others have added."""
        for path in sorted(self._directory.glob("*.jsonl")):
            if path == self._own or path.stat().st_size == self._read.get(path.name, 0):
                continue
            for entry, end in whole_lines(path, self._read.get(path.name, 0)):
                self._read[path.name] = end
                if entry.get("done"):
                    self._entries[entry["id"]] = entry

    def claim(self, name: str) -> bool:
        """Whether this process may work on an answer: nobody else does, and nobody has."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except OSError:
            return False
        self.refresh()
        if name in self._entries:
            self.release(name)
            return False
        return True

    def release(self, name: str) -> None:
        """Let others have an answer that was claimed."""
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, _place(name))

    def add(self, entry: dict[str, Any]) -> None:
        """Append an answer; one that is not `done` is only counted, and asked for again.

        Raises:
            OSError: There is no room; half a line is passed over by readers.
        """
        line = b"\n" + json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        descriptor = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{self._own} took a part of a line; is the disk full?")
        finally:
            os.close(descriptor)
        if entry.get("done"):
            self._entries[entry["id"]] = entry

    def close(self) -> None:
        """Give all locks back."""
        os.close(self._locks)


def entries(directory: Path) -> Iterator[dict[str, Any]]:
    """All that the journals of a folder say, also of attempts that an outage ended."""
    for path in sorted(directory.glob("*.jsonl")):
        for entry, _ in whole_lines(path, 0):
            yield entry


def _place(name: str) -> int:
    return int(name[:16], 16) % _RANGE


def whole_lines(path: Path, start: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Entries of whole lines with where they end; what a kill or a full disk cut off is passed over."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                yield entry, start
