"""How many episodes run, and how many of them use one resource, at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

POLICY = "policy"
"""The model, among the names of tools."""
T = TypeVar("T")


class Slots:
    """A bound per resource, shared by all episodes of a run; a resource without one is not bounded.

    Args:
        limits: `policy` or a tool's name -> uses at the same time, at least 1.

    Raises:
        ValueError: A bound below 1.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        for resource, limit in limits.items():
            if limit < 1:
                raise ValueError(f"{resource} may be used {limit} times at once; expected at least 1")
        self._semaphores = {resource: asyncio.Semaphore(limit) for resource, limit in limits.items()}

    @asynccontextmanager
    async def use(self, resource: str) -> AsyncIterator[float]:
        """Hold a slot; gives how long it took to get one, in seconds."""
        semaphore = self._semaphores.get(resource)
        if semaphore is None:
            yield 0.0
            return
        asked = time.monotonic()
        async with semaphore:
            yield time.monotonic() - asked


async def for_each(items: Iterable[T], do: Callable[[T], Awaitable[bool | None]], *, max_in_flight: int) -> bool:
    """Run `do` on every item, a bounded number at once, reading items only as fast as they are needed.

    Args:
        items: In order.
        do: Returns False to say that no further item should be begun; those under way are finished.
        max_in_flight: At least 1.

    Returns:
        Whether all items were begun.

    Raises:
        ExceptionGroup: `do` raised; the others were cancelled.
    """
    slots = asyncio.Semaphore(max_in_flight)
    stopped = False

    async def one(item: T) -> None:
        nonlocal stopped
        try:
            stopped = (await do(item)) is False or stopped
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for item in items:
            await slots.acquire()
            if stopped:
                break
            group.create_task(one(item))
    return not stopped
