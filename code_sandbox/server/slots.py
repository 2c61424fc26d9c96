"""Who may run a cell now: a bounded queue in front of a number of slots."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from code_sandbox.errors import Overloaded, QueueTimeout


class CellSlots:
    """Hands out slots, first come, first served.

    A session asks for a slot only once its earlier cells are done, so however many cells one session sends, it has one
    place in the queue like every other.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(running)
        self._max_waiting = waiting
        self.waiting = 0
        """Cells that have no slot yet."""

    @contextlib.asynccontextmanager
    async def turn(self, session: asyncio.Lock, timeout_s: float) -> AsyncIterator[float]:
        """The session to ourselves and a slot; yields how long that took, in seconds.

        Raises:
            Overloaded: Too many wait already.
            QueueTimeout: Not within `timeout_s` seconds.
        """
        if self.waiting >= self._max_waiting:
            raise Overloaded(f"{self.waiting} cells are waiting already; retry later or start more servers")
        started_s = time.monotonic()
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await session.acquire()
                try:
                    await self._free.acquire()
                except BaseException:
                    session.release()
                    raise
        except TimeoutError as error:
            raise QueueTimeout(f"no slot became free within {timeout_s:g} s; nothing ran") from error
        finally:
            self.waiting -= 1
        try:
            yield time.monotonic() - started_s
        finally:
            self._free.release()
            session.release()

    @contextlib.asynccontextmanager
    async def any(self) -> AsyncIterator[None]:
        """A slot, however long it takes."""
        async with self._free:
            yield
