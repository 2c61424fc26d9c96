"""A cell as a session gets it, what it sends back, and how long one waits for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell as a session gets it."""

    code: str
    timeout_s: float
    max_chars: int
    max_images: int = 0
    max_pixels: int = 1 << 40
    mime: str = "image/png"
    interrupt_grace_s: float = 0.05
    """After a time-out, how long the cell may take to react to KeyboardInterrupt before it is killed."""
    silent: bool = False


@dataclass(slots=True)
class CellOutput:
    """What a cell sent, not yet bounded or checked."""

    status: str = "ok"
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    result: str = ""
    error: tuple[str, str, str] | None = None
    """(name, message, traceback)"""
    images: list[tuple[str, bytes]] = field(default_factory=list)
    """(mime, file)"""
    more_images: int = 0
    state_lost: bool = False
    lost_by_us: bool = False
    """The process ended through no doing of the cell, which has then not run: it may run in another one."""
    execution_time_s: float = 0.0


_SLICE_S = 0.25
_INTERRUPTS = 2
"""A wait that takes longer than twice this was one in which we did not run ourselves."""


class CellClock:
    """Measures one cell in time in which this process ran itself.

    When the server is stopped, or the machine with all that runs on it, the cell is not to blame for the time that passes.
    """

    def __init__(self) -> None:
        self.spent_s = 0.0

    async def wait_for_any(self, futures: Collection[asyncio.Future[Any]], timeout_s: float) -> bool:
        """Wait until one of them is done; False after `timeout_s` seconds."""
        end_s = self.spent_s + timeout_s
        while (left_s := end_s - self.spent_s) > 0:
            slice_s, started_s = min(left_s, _SLICE_S), time.monotonic()
            done, _ = await asyncio.wait(futures, timeout=slice_s, return_when=asyncio.FIRST_COMPLETED)
            self.spent_s += min(time.monotonic() - started_s, slice_s + _SLICE_S)
            if done:
                return True
        return False

    async def wait_interrupting(
        self, futures: Collection[asyncio.Future[Any]], interrupt: Callable[[], None], grace_s: float
    ) -> bool:
        """Interrupt the cell, again after half of the time, and wait until one of them is done; False after `grace_s`.

        An interrupt that comes while Python tidies an object up is lost: whatever is raised there is only printed.
        """
        for _ in range(_INTERRUPTS):
            interrupt()
            if await self.wait_for_any(futures, grace_s / _INTERRUPTS):
                return True
        return False
