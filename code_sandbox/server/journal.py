"""Writes finished cells to Redis behind the calls, in order, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from code_sandbox.errors import NotReplayable, StoreUnavailable
from code_sandbox.server.store import Finished, JournalEntry, Registered, SessionStore

_LOG = logging.getLogger(__name__)
_BATCH = 256
_QUEUED = 65_536
_REPLAYABLE = ("ok", "error")
_FORGOTTEN, _NOT_WRITTEN = -1, -2
REPEATED = ("code", "timeout_s", "max_pixels", "image_format", "max_images", "max_chars")
"""What of a request decides what its cell does, and is written down for running it again."""


class Journal:
    """The one writer of a server.

    Args:
        store: Where to.
        server: This server's instance name.
        lease_s: Renewed by every cell.
        on_moved: Told the sessions that another server has taken over.
        on_forgotten: Told the sessions that Redis does not have, or not all of.
        on_state: Told whether Redis answered.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        server: str,
        lease_s: float,
        on_moved: Callable[[str], None],
        on_forgotten: Callable[[str], None],
        on_state: Callable[[bool], None],
    ) -> None:
        self._store = store
        self._server = server
        self._lease_s = lease_s
        self._on_moved = on_moved
        self._on_forgotten = on_forgotten
        self._on_state = on_state
        self._queue: asyncio.Queue[tuple[Finished, asyncio.Future[bool] | None]] = asyncio.Queue(_QUEUED)
        self.lost = 0
        """Cells that could not be written when they were done; until they are, their sessions cannot move."""

    def add(self, cell: Finished) -> None:
        """Write a cell down soon."""
        self._put(cell, None)

    async def add_and_wait(self, cell: Finished) -> bool:
        """Write a cell down before going on; False if Redis does not answer."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._put(cell, written)
        return await written

    def _put(self, cell: Finished, written: asyncio.Future[bool] | None) -> None:
        try:
            self._queue.put_nowait((cell, written))
        except asyncio.QueueFull:
            self.lost += 1
            if written is not None:
                written.set_result(False)

    async def run(self) -> None:
        """Write until cancelled, then what is left."""
        try:
            while True:
                await self._write(await self._queue.get())
        finally:
            while not self._queue.empty():
                await self._write(self._queue.get_nowait())

    async def _write(self, first: tuple[Finished, asyncio.Future[bool] | None]) -> None:
        batch = [first]
        with contextlib.suppress(asyncio.QueueEmpty):
            while len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
        try:
            replies = await self._store.record([cell for cell, _ in batch], server=self._server, lease_s=self._lease_s)
        except StoreUnavailable:
            replies = [_NOT_WRITTEN] * len(batch)
            self._on_state(False)
        else:
            self._on_state(True)
            for name in {cell.session_id for (cell, _), reply in zip(batch, replies, strict=True) if reply == _FORGOTTEN}:
                self._on_forgotten(name)
        for (cell, written), reply in zip(batch, replies, strict=True):
            if reply == 0:
                _LOG.warning("session %s belongs to another server by now; closing it here", cell.session_id)
                self._on_moved(cell.session_id)
            elif reply < 0:
                self.lost += 1
            if written is not None and not written.done():
                written.set_result(reply == 1)


def to_replay(session_id: str, known: Registered, cell: int | None) -> tuple[JournalEntry, ...]:
    """The cells that make a lost session again, up to what its caller has seen.

    Raises:
        NotReplayable: Some are not written down, or cannot be run again.
    """
    if not known.whole:
        raise NotReplayable(f"session {session_id!r} is lost with its process: it has run more code than is written down")
    wanted = known.base + len(known.journal) if cell is None else cell
    if not known.base <= wanted <= known.base + len(known.journal):
        raise NotReplayable(
            f"session {session_id!r} is lost with its process: its caller has {wanted} answers, but cells "
            f"{known.base} to {known.base + len(known.journal)} are written down"
        )
    entries = known.journal[: wanted - known.base]
    if any(entry.status not in _REPLAYABLE for entry in entries):
        raise NotReplayable(f"session {session_id!r} is lost with its process: a cell that timed out cannot be run again")
    return entries
