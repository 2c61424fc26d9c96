"""User ids for sessions: a range that is this server's alone, each used by one session at a time."""

from __future__ import annotations

import socket
from collections import deque

from code_sandbox.errors import KernelStartFailed


class UidBlock:
    """A range of user ids that no other sandbox server of this machine uses.

    Limits on processes are counted by user, so two servers must not share one. A name in the abstract socket namespace is
    the lock: it goes with its process, however that ends.
    """

    _SIZE = 65_536
    _BLOCKS = 4096

    def __init__(self, base: int) -> None:
        self._lock = socket.socket(socket.AF_UNIX)
        # First in, first out, so that an id rests before the next session has it.
        self._free: deque[int] = deque()
        for number in range(self._BLOCKS):
            try:
                self._lock.bind(f"\0deepeyes-sandbox-uids-{base}-{number}")
            except OSError:
                continue
            self.first = base + number * self._SIZE
            """The first of them."""
            self._next = self.first
            return
        self._lock.close()
        raise KernelStartFailed(f"all {self._BLOCKS} ranges of user ids from {base} on are taken; choose another uid_base")

    def take(self) -> int:
        """One that no session has.

        Raises:
            KernelStartFailed: All are taken.
        """
        if self._free:
            return self._free.popleft()
        if self._next == self.first + self._SIZE:
            raise KernelStartFailed(f"all {self._SIZE:,} user ids from {self.first} on are taken by sessions")
        self._next += 1
        return self._next - 1

    def free(self, uid: int) -> None:
        """Let another session have it. Nothing that runs as this user may be left."""
        self._free.append(uid)

    def release(self) -> None:
        """Let another server have them all. Safe to call twice."""
        self._lock.close()
