"""Files that are whole or not there, whoever looks and whenever the writer ends."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""How the name of a file ends that is not whole; it begins with a dot. A kill leaves it behind, and it may be deleted."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotWritten(OSError):
    """A file could not be written; what was there before is as it was. The message names it, and the room that is left."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), str(path))
        # Of what is done here only the making of a folder finds something in its way.
        why = f"{path.parent} is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        self._told = f"{path} cannot be written: {why}{_room(path)}"

    def __str__(self) -> str:
        return self._told


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = False, mode: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write into, which is put in its place, whole, when the block ends; an error in the block leaves nothing new.

    Any number of processes, on any number of machines that share the disk, may do so at once: the last one stays.

    Args:
        path: Its folder is made if it is not there.
        durable: Be safe from a loss of power as well, for what is not made again: bytes and name are forced to the disk.
        mode: Permissions, where they are to be others than by default.

    Raises:
        NotWritten: The disk is full, or the place cannot be written to.
    """
    partial = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    is_ours = True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            is_ours = False
            yield file
            is_ours = True
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
        if durable:
            settle(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and not isinstance(error, NotWritten) and (is_ours or error.errno in _FULL):
            raise NotWritten(path, error) from error
        raise


def write_whole(
    path: Path, content: str | bytes | Iterable[str | bytes], *, durable: bool = False, mode: int | None = None
) -> None:
    """Write a file as `whole_file` does: bytes, text, or parts of either.

    Text is written in UTF-8, its line ends as they are; half a surrogate pair, which no file holds, becomes a question mark.

    Raises:
        NotWritten: The disk is full, or the place cannot be written to.
    """
    parts = (content,) if isinstance(content, str | bytes) else content
    with whole_file(path, durable=durable, mode=mode) as file:
        file.writelines(part.encode("utf-8", "replace") if isinstance(part, str) else part for part in parts)


def settle(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk.

    Raises:
        OSError: It cannot be read, or the disk has failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle_disk(folder: Path) -> None:
    """Force all that was written to the disk that a folder lies on: thousands of files at once, not one after the other.

    Raises:
        OSError: The disk has failed.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not Linux
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _room(path: Path) -> str:
    """How much room is left where a file was to be."""
    there = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    if there is None:
        return ""
    try:
        return f" ({shutil.disk_usage(there).free / 1e9:,.2f} GB free in {there})"
    except OSError:
        return ""
