"""Runs cells in sessions, each in a process whose state is what the session's earlier cells have made.

A process can end in two ways. Its own code ends it: by a signal, a limit, a time-out that it ignored. That is an answer,
`killed` or `timeout`, and the state is new. Or we lose it: the zygote was killed, or somebody killed the session from
outside. Then the earlier cells are run again in another process, what they do is compared, and the cell runs there; who
called sees only `replayed`. Nothing of a cell outlives its process, so one that was cut off has not run.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable

from code_sandbox.errors import BadImage, KernelStartFailed, NotReplayable, TooManySessions, UnknownSession
from code_sandbox.server.blobs import BlobStore
from code_sandbox.server.cells import Cell, CellOutput
from code_sandbox.server.journal import REPEATED, to_replay
from code_sandbox.server.kernel_pool import KernelPool
from code_sandbox.server.metrics import Metrics
from code_sandbox.server.results import bounded, digest
from code_sandbox.server.session_state import Session
from code_sandbox.server.settings import ServerSettings
from code_sandbox.wire import ExecuteRequest, ExecuteResult

_LOG = logging.getLogger(__name__)
_MIMES = {"png": "image/png", "jpeg": "image/jpeg"}
_DECODED_WITHIN_S = 30.0
_TRIES = 3
"""A cell whose process is lost so many times gets no other one."""


class _ProcessLost(Exception):
    """Our doing; the cell has not run."""


class SessionRunner:
    """The one of a server.

    Args:
        settings: Limits.
        pool: Where processes come from.
        blobs: Where images come from.
        metrics: Told what was run.
        on_abandoned: Told the sessions of which nobody knows any more what they hold.
    """

    def __init__(
        self,
        settings: ServerSettings,
        pool: KernelPool,
        blobs: BlobStore,
        metrics: Metrics,
        *,
        on_abandoned: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._blobs = blobs
        self._metrics = metrics
        self._on_abandoned = on_abandoned
        self.draining = False
        """Set once processes are ended because the server ends."""
        self.running_cells = 0

    async def run(self, session: Session, request: ExecuteRequest, *, replayed: int = 0) -> ExecuteResult:
        """Run one cell in its turn.

        Args:
            session: Held by the caller.
            request: The cell.
            replayed: Cells that were run again for it already.

        Raises:
            NotReplayable: We lost the process, and its state could not be made again.
            KernelStartFailed: There is no process, and none started.
            UnknownSession: It was closed meanwhile.
            TooManySessions: The server ends.
        """
        for _ in range(_TRIES):
            try:
                replayed = await self.ensure(session) or replayed
                return await self._run_once(session, request, replayed)
            except _ProcessLost:
                self._metrics.lost("processes")
                await self.drop(session)
        raise NotReplayable(
            f"session {session.session_id!r} is lost: its process was lost {_TRIES} times under cell {session.cells}"
        )

    async def ensure(self, session: Session) -> int:
        """See that a session has a process with the state that it should have.

        Returns:
            How many cells were run again for that.

        Raises:
            NotReplayable: They did not do the same again, or are not all known.
            KernelStartFailed: No process started.
            UnknownSession: It was closed meanwhile.
        """
        kernel = session.kernel
        if kernel is not None and kernel.exited.is_set() and await kernel.process.was_lost():
            self._metrics.lost("processes")
            await self.drop(session)
        if session.kernel is not None:
            return 0
        # Before anything is started: it may say that nothing can be done.
        entries = to_replay(session.session_id, session.registered(""), None)
        await self._start(session)
        try:
            for number, entry in enumerate(entries, start=session.history.base):
                request = ExecuteRequest.model_validate({name: getattr(entry, name) for name in REPEATED})
                if digest(await self._run_once(session, request, 0)) != entry.digest:
                    raise NotReplayable(
                        f"session {session.session_id!r} is lost with its process: cell {number} did not do the same when "
                        "it was run again"
                    )
        except _ProcessLost as error:
            await self.drop(session)
            raise KernelStartFailed("the process was lost while its cells were run again") from error
        except BaseException:
            await self.drop(session)
            raise
        return len(entries)

    async def check_image(self, sha256: str) -> None:
        """Decode a file in a process of its own.

        Raises:
            BadImage: It cannot be.
            KernelStartFailed: No process started.
        """
        kernel = await self._pool.take()
        copy = await asyncio.to_thread(self._blobs.copy, sha256)
        try:
            await kernel.open([copy], seed=0, timeout_s=_DECODED_WITHIN_S)
            output = await kernel.execute(Cell("image_1.load()", timeout_s=_DECODED_WITHIN_S, max_chars=500, silent=True))
        finally:
            os.close(copy)
            await kernel.kill()
        if output.lost_by_us:
            raise KernelStartFailed("the process was lost while it decoded an image")
        if output.status != "ok":
            reason = output.error[1] if output.error else f"its decoder was {output.status}"
            raise BadImage(reason)

    async def _run_once(self, session: Session, request: ExecuteRequest, replayed: int) -> ExecuteResult:
        assert session.kernel is not None
        settings = self._settings
        cell = Cell(
            request.code,
            timeout_s=request.timeout_s,
            max_chars=request.max_chars,
            max_images=request.max_images,
            max_pixels=request.max_pixels,
            mime=_MIMES[request.image_format],
            interrupt_grace_s=settings.interrupt_grace_s,
        )
        self.running_cells += 1
        session.running_since_s = session.last_used_s = time.monotonic()
        try:
            # A process that ended since the last cell, through its own doing, has lost its variables: that is an answer, and
            # not a fresh start.
            ended = session.kernel.exited.is_set()
            output = CellOutput(status="killed", state_lost=True) if ended else await session.kernel.execute(cell)
        except asyncio.CancelledError:
            # The caller has gone in the middle of a cell.
            self._on_abandoned(session.session_id)
            raise
        finally:
            self.running_cells -= 1
            session.running_since_s = 0.0
            session.last_used_s = time.monotonic()
        if session.closed:
            # Its process was ended under the cell, which is not the cell's fault.
            if self.draining:
                raise TooManySessions("this server is ending; ask another one")
            raise UnknownSession(f"session {session.session_id!r} was closed while its cell ran")
        if output.lost_by_us:
            _LOG.warning("a session's process was lost", extra={"session": session.session_id})
            raise _ProcessLost
        if output.state_lost:
            await self.drop(session)
        return bounded(output, request, max_image_bytes=settings.max_image_bytes, replayed=replayed)

    async def _start(self, session: Session) -> None:
        started_s = time.monotonic()
        kernel = await self._pool.take()
        seed = int.from_bytes(hashlib.sha256(session.session_id.encode()).digest()[:8], "big")
        descriptors: list[int] = []
        try:
            for name in session.images:
                descriptors.append(await asyncio.to_thread(self._blobs.copy, name))
            await kernel.open(descriptors, seed=seed, timeout_s=self._settings.start_timeout_s)
            if session.closed:
                raise UnknownSession(f"session {session.session_id!r} was closed while it opened")
            session.kernel = kernel
        except BaseException:
            await kernel.kill()
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._metrics.opened(time.monotonic() - started_s)

    async def drop(self, session: Session) -> None:
        """End a session's process; its next cell gets another one."""
        kernel, session.kernel = session.kernel, None
        if kernel is not None:
            await kernel.kill()
