"""Episodes on disk: one JSON object a line, images beside it by content hash.

    <directory>/episodes.jsonl            written by one process at a time, or
    <directory>/episodes-<writer>.jsonl   by many on several nodes, each its own: appending to one file is not atomic on NFS
    <directory>/images/<sha256>, …        where else they lie: agent/record_images.py

Reading gives back an equal episode, but for images of which only a preview was kept. A head is read without its episode, and
an episode without its images, which are read when they are asked for. A last line that a kill cut off is skipped; any other
line that cannot be read is left out too, but said and counted. What a line says: agent/records.py.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from agent.episode import Episode
from agent.episode_rows import NewerRecord, UnreadableRecord
from agent.lines import Line, bounded_lines
from agent.messages import Message
from agent.record_images import RecordedImage, RecordImages
from agent.records import Rollout, RolloutFacts, RolloutHead, parse_head, parse_rollout, to_line

_log = logging.getLogger(__name__)
_TOLD_OF_A_FILE = 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line of a recording lies."""

    path: Path
    offset: int
    """Bytes before it in its file."""
    num_bytes: int
    """Its end included."""

    @property
    def end(self) -> int:
        """Bytes up to the next line."""
        return self.offset + self.num_bytes


class TrajectoryWriter:
    """Appends to a directory, on the caller's thread; several threads may share it.

    Args:
        directory: Made if it is not there.
        shared: Whether other processes write to it too; this one then has a file of its own.
        images: Takes them; beside the records by default.
    """

    def __init__(self, directory: Path, *, shared: bool = False, images: RecordImages | None = None) -> None:
        host = "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())[:32]
        # Neither host nor process id need be unique: containers share names, and numbers come again after a restart.
        name = f"episodes-{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl" if shared else _SINGLE
        self.directory, self._path, self._lock = directory, directory / name, threading.Lock()
        self._images = images or RecordImages(directory, fanned=shared)

    def write(self, episode: Episode, facts: RolloutFacts | None = None) -> None:
        """Append one episode; its images first, so that a line never points at nothing.

        Raises:
            OSError: No room, or no such place any more; nothing that can be read was left behind.
        """
        for message in _messages(episode):
            for image in message.images:
                self._images.keep(image)
        line = to_line(Rollout(episode, facts or RolloutFacts()))
        with self._lock:
            self._append(line)

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # A kill in the middle of a write leaves half a line; the next line must not be glued to it.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


_SINGLE = "episodes.jsonl"
_OF_WRITERS = "episodes-*.jsonl"


def record_files(directory: Path) -> list[Path]:
    """The files with episodes of one run, by name; empty if there are none."""
    single = directory / _SINGLE
    return ([single] if single.is_file() else []) + sorted(directory.glob(_OF_WRITERS))


def forget_after(directory: Path, step: int) -> int:
    """Take the records of later training steps away, before a run that was resumed after `step` makes them again.

    Nothing may be writing there. A file is replaced whole or not at all; images are kept, for they may be made again.

    Returns:
        How many records went; 0 if nothing was ever recorded there.
    """
    forgotten = 0
    for path in record_files(directory):
        kept, gone = path.with_name(f"{path.name}.kept"), 0
        with path.open("rb") as lines, path.open("rb") as again, kept.open("wb") as file:
            for line in bounded_lines(lines):
                if line.text is not None and _step_of(line.text, path) > step:
                    gone += 1
                else:
                    _copy(again, line, file)
            file.flush()
            os.fsync(file.fileno())
        if gone:
            kept.replace(path)
        else:
            kept.unlink()
        forgotten += gone
    return forgotten


def _copy(source: IO[bytes], line: Line, target: IO[bytes]) -> None:
    """Copy a line, also one that is too long to be read."""
    if line.text is not None:
        target.write(line.text)
        return
    source.seek(line.start)
    left = line.length
    while left and (block := source.read(min(left, 1 << 20))):
        target.write(block)
        left -= len(block)


def _step_of(line: bytes, path: Path) -> float:
    try:
        step = parse_head(line).facts.step
    except UnreadableRecord:
        step = None
    except NewerRecord as error:
        raise NewerRecord(f"{path}: {error}") from error
    return float("-inf") if step is None else step


@functools.lru_cache(maxsize=4096)
def say_unreadable(path: Path, number: int, reason: str) -> None:
    """Warn of a line that is left out, once in this process.

    Args:
        path: The file.
        number: Of the line, from 1.
        reason: Why it cannot be read.
    """
    _log.warning("%s:%d cannot be read and is left out: %s", path, number, reason[:400])


class RecordReader:
    """Reads one file of a recording, line by line.

    Args:
        path: The file.

    Attributes:
        unreadable: How many lines were left out so far, a last line that was cut off not among them.
        passed: Offset of what follows the last whole line that was read or left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable = 0
        self.passed = 0

    def heads(self, start: int = 0) -> Iterator[tuple[Place, RolloutHead]]:
        """Each whole line's place and head.

        Args:
            start: Offset of a line.

        Raises:
            NewerRecord: A newer version wrote a line.
        """
        for place, line in self._lines(start):
            head = self._read(place, line, parse_head)
            if head is not None:
                yield place, head

    def rollouts(self) -> Iterator[Rollout]:
        """Each whole line's rollout; images are read when they are asked for.

        Raises:
            NewerRecord: A newer version wrote a line.
        """
        for place, line in self._lines(0):
            rollout = self._read(place, line, self._parse)
            if rollout is not None:
                yield rollout

    def at(self, offset: int) -> Rollout:
        """The rollout of the line that begins there.

        Raises:
            UnreadableRecord: It is damaged.
            NewerRecord: A newer version wrote it.
        """
        with self.path.open("rb") as lines:
            lines.seek(offset)
            line = next(bounded_lines(lines), None)
        if line is None or line.text is None:
            raise UnreadableRecord("the file ends before it" if line is None else line.problem)
        return self._parse(line.text)

    def leave_out(self, place: Place, error: UnreadableRecord) -> None:
        """Say and count a line that cannot be read."""
        self.unreadable += 1
        if self.unreadable <= _TOLD_OF_A_FILE:
            say_unreadable(self.path, _number(place), str(error))

    def _lines(self, start: int) -> Iterator[tuple[Place, bytes]]:
        with self.path.open("rb") as lines:
            lines.seek(start)
            self.passed = start
            for line in bounded_lines(lines):
                place = Place(self.path, line.start, line.length)
                if line.text is None and line.whole:
                    self.leave_out(place, UnreadableRecord(line.problem))
                elif line.text is not None and line.text.strip():
                    yield place, line.text
                if line.whole:
                    self.passed = line.end

    def _read(self, place: Place, line: bytes, parse: Callable[[bytes], _T]) -> _T | None:
        try:
            return parse(line)
        except UnreadableRecord as error:
            if line.endswith(b"\n"):  # otherwise it is the last one: cut off by a kill, or still being written
                self.leave_out(place, error)
        except NewerRecord as error:
            raise NewerRecord(f"{self.path}:{_number(place)}: {error}") from error
        return None

    def _parse(self, line: bytes) -> Rollout:
        return parse_rollout(line, functools.partial(RecordedImage, self.path.parent))


def _number(place: Place) -> int:
    """The line's number, from 1; it is counted only where it has to be told."""
    count, left = 1, place.offset
    with place.path.open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            count, left = count + block.count(b"\n"), left - len(block)
    return count


def read_rollouts(directory: Path) -> Iterator[Rollout]:
    """Rollouts in the order they were written, one writer's after the other's; unreadable lines are said and left out.

    Raises:
        FileNotFoundError: Nothing was recorded there.
        NewerRecord: A newer version wrote a line.
    """
    paths = record_files(directory)
    if not paths:
        raise FileNotFoundError(f"no episodes in {directory}; expected {_SINGLE} or {_OF_WRITERS} there")
    for path in paths:
        yield from RecordReader(path).rollouts()


def _messages(episode: Episode) -> Iterator[Message]:
    yield from episode.opening
    for turn in episode.turns:
        if turn.observation is not None:
            yield turn.observation


def tokens(episode: Episode) -> tuple[list[int], list[int], list[float]]:
    """What the model saw and wrote as one stream; empty where its server does not tell ids.

    Returns:
        (ids, mask, log-probabilities), each [num_tokens]; the mask is 1 where the model sampled, and only there a
        log-probability means anything.
    """
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for turn in episode.turns:
        for part, sampled in ((turn.reply.context_ids, 0), (turn.reply.token_ids, 1)):
            ids += part
            mask += [sampled] * len(part)
        logprobs += [0.0] * len(turn.reply.context_ids)
        logprobs += turn.reply.logprobs or [0.0] * len(turn.reply.token_ids)
    return ids, mask, logprobs
