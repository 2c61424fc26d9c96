"""Files that are whole or not there, also for another machine that looks at the same disk."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, texts: Iterable[str]) -> None:
    """Write a file of text under another name, force it to the disk, and rename it into place.

    Raises:
        OSError: It cannot be written; what was there before is as it was.
    """
    write_bytes_atomically(path, (text.encode() for text in texts))


def write_bytes_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Write bytes as `write_atomically` writes text."""
    # Process ids repeat between the machines that share a disk.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
