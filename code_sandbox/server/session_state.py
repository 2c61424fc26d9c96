"""One live session as its server knows it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from code_sandbox.server.kernel_pool import AnyKernel


@dataclass(slots=True)
class Session:
    """Its process, its images, and how far it has come."""

    session_id: str
    images: tuple[str, ...]
    """sha256 of each."""
    kernel: AnyKernel | None = None
    """None before the first cell, and after one that lost the state."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Cells of one session run one after the other."""
    last_used_s: float = field(default_factory=time.monotonic)
    closed: bool = False
    cells: int = 0
    """Finished."""
    journal_bytes: int = 0
    """Of code since the state was new."""
    running_since_s: float = 0.0
    """0 while no cell runs."""
