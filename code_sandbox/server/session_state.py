"""One live session as its server knows it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from code_sandbox.server.kernel_pool import AnyKernel
from code_sandbox.server.store import JournalEntry, Registered


@dataclass(slots=True)
class History:
    """The cells that have made a session's state, for making it again in another process."""

    base: int = 0
    """Cells before: the state was lost in the last of them."""
    entries: list[JournalEntry] = field(default_factory=list)
    whole: bool = True
    """False once there was more code than is kept."""
    size_bytes: int = 0
    """Of their code."""

    def add(self, entry: JournalEntry, *, limit_bytes: int) -> None:
        """One more cell is part of the state."""
        self.size_bytes += len(entry.code.encode(errors="replace"))
        if self.size_bytes > limit_bytes:
            self.whole = False
            self.entries.clear()
        elif self.whole:
            self.entries.append(entry)

    def begin_anew(self, base: int) -> None:
        """The state is that of a new process."""
        self.base, self.whole, self.size_bytes = base, True, 0
        self.entries.clear()


@dataclass(slots=True)
class Session:
    """Its process, its images, and how far it has come."""

    session_id: str
    images: tuple[str, ...]
    """sha256 of each."""
    kernel: AnyKernel | None = None
    """None before the first cell, after one that lost the state, and while a lost process is replaced."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Cells of one session run one after the other."""
    last_used_s: float = field(default_factory=time.monotonic)
    closed: bool = False
    cells: int = 0
    """Finished."""
    history: History = field(default_factory=History)
    running_since_s: float = 0.0
    """0 while no cell runs."""

    def registered(self, server: str) -> Registered:
        """The session as it should stand in Redis."""
        history = self.history
        return Registered(server, self.images, history.base, tuple(history.entries), whole=history.whole)
