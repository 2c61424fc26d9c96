"""Image files by their sha256, uploaded once and shared by all sessions that look at them."""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from code_sandbox.errors import BadImage, BlobsMissing
from code_sandbox.pictures import BROKEN, upright_rgb


class BlobStore:
    """A directory of files, the least recently used removed first.

    Args:
        directory: Made if missing; readable by this user only.
        limit_bytes: Above which files are removed that no session uses.
    """

    def __init__(self, directory: Path, *, limit_bytes: int) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._users: dict[str, int] = {}
        self.total_bytes = 0

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a file. Blocking: decodes the image, because what cannot be read must be refused here and not in a cell.

        Raises:
            BadImage: The hash differs, or it is no readable image.
            OSError: The disk is full.
        """
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise BadImage(f"the body has sha256 {actual}, but the address says {sha256}")
        try:
            with Image.open(io.BytesIO(data)) as image:
                upright_rgb(image)
        except BROKEN as error:
            raise BadImage(f"the image {sha256[:12]}… ({len(data):,} bytes) cannot be read: {error}") from error
        path = self._directory / sha256
        partial = path.with_suffix(f".{os.getpid()}-{id(data)}")
        partial.write_bytes(data)
        partial.chmod(0o400)
        partial.replace(path)

    def added(self, sha256: str, size: int) -> None:
        """Count a file that `put` has written, and make room."""
        if sha256 not in self._sizes:
            self.total_bytes += size
        self._sizes[sha256] = size
        self._sizes.move_to_end(sha256)
        for name in [name for name in self._sizes if not self._users.get(name) and name != sha256]:
            if self.total_bytes <= self._limit_bytes:
                break
            self.total_bytes -= self._sizes.pop(name)
            (self._directory / name).unlink(missing_ok=True)

    def has(self, sha256: str) -> bool:
        """Whether the file is here."""
        return sha256 in self._sizes

    def hold(self, names: Iterable[str]) -> None:
        """Keep files from removal while a session uses them.

        Raises:
            BlobsMissing: Some are not here; none is held then.
        """
        names = list(names)
        missing = [name for name in dict.fromkeys(names) if name not in self._sizes]
        if missing:
            raise BlobsMissing(missing)
        for name in names:
            self._users[name] = self._users.get(name, 0) + 1
            self._sizes.move_to_end(name)

    def release(self, names: Iterable[str]) -> None:
        """Undo `hold`."""
        for name in names:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]

    def open(self, sha256: str) -> int:
        """A new read-only descriptor of the file; the caller closes it."""
        return os.open(self._directory / sha256, os.O_RDONLY | os.O_CLOEXEC)
