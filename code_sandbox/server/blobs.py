"""Image files by their sha256, uploaded once, with a copy for each session that looks at them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from code_sandbox.errors import BadImage, BlobsMissing

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


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
        """Keep a file. Blocking, and decodes nothing.

        Raises:
            BadImage: The hash differs.
            OSError: The disk is full.
        """
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise BadImage(f"the body has sha256 {actual}, but the address says {sha256}")
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

    def remove(self, sha256: str) -> None:
        """Remove a file that nobody was told of."""
        (self._directory / sha256).unlink(missing_ok=True)

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

    def copy(self, sha256: str) -> int:
        """A descriptor of a copy in memory that nobody can change, for one session; the caller closes it.

        A copy, because whoever owns a file that others have open too can make them wait for it (leases), lock it and
        change its mode, and a session without a user of its own owns what the server owns.
        """
        file = os.open(self._directory / sha256, os.O_RDONLY | os.O_CLOEXEC)
        copy = os.memfd_create(sha256, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            left = os.fstat(file).st_size
            while left:
                left -= os.sendfile(copy, file, None, left)
            os.fchmod(copy, 0o400)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
            os.lseek(copy, 0, os.SEEK_SET)
        except BaseException:
            os.close(copy)
            raise
        finally:
            os.close(file)
        return copy
