"""The server's own folder below the system's temporary one, and what killed servers have left there."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path

_LOG = logging.getLogger(__name__)
_PREFIX = "dsb-"
_LOCK = "lock"


class OwnFolder:
    """A new folder that lasts as long as its server; what is left of it by a server that was killed, the next one removes.

    A lock says which servers live: it goes with its process, however that ends.
    """

    def __init__(self) -> None:
        self._remove_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Locked before it has its name: nobody must find it without an owner.
        new = self.path / f"{_LOCK}.new"
        self._lock = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Remove it with all that is in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _remove_leftovers() -> None:
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            # Gone meanwhile, somebody else's, or without a lock: none of a killed server of ours.
            with contextlib.suppress(OSError):
                if path.lstat().st_uid != os.geteuid() or path.is_symlink():
                    continue
                lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    _LOG.warning("removed what a killed server had left", extra={"folder": str(path)})
                finally:
                    os.close(lock)
