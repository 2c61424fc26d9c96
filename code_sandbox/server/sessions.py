"""Sessions: opening, running cells one at a time, moving from a dead server, expiring, closing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from code_sandbox.errors import (
    BadImage,
    NotReplayable,
    OutOfStep,
    SessionHeld,
    StoreUnavailable,
    TooManySessions,
    UnknownSession,
)
from code_sandbox.server.blobs import BlobStore
from code_sandbox.server.journal import REPEATED, Journal, to_replay
from code_sandbox.server.kernel_pool import KernelPool
from code_sandbox.server.memory import available_bytes, watch_memory
from code_sandbox.server.metrics import Metrics
from code_sandbox.server.own_folder import OwnFolder
from code_sandbox.server.results import digest
from code_sandbox.server.session_process import SessionProcess
from code_sandbox.server.session_runner import SessionRunner
from code_sandbox.server.session_state import Session
from code_sandbox.server.settings import ServerSettings
from code_sandbox.server.slots import CellSlots
from code_sandbox.server.store import HEARTBEAT_S, Finished, JournalEntry, SessionStore
from code_sandbox.wire import ExecuteRequest, ExecuteResult

_LOG = logging.getLogger(__name__)
_WATCHED_FOR_S = 1.5
_Result = TypeVar("_Result")


class SessionManager:
    """All sessions of one server."""

    def __init__(self, settings: ServerSettings, store: SessionStore) -> None:
        self._settings = settings
        self._store = store
        self._sessions: dict[str, Session] = {}
        self._moving: dict[str, asyncio.Lock] = {}
        self._folder = OwnFolder()
        self.root = self._folder.path
        self.instance = f"{settings.name}#{secrets.token_hex(4)}"
        """This server's name in this life; a restarted one has another."""
        self.pool = KernelPool(settings, self.root)
        self.blobs = BlobStore(self.root / "blobs", limit_bytes=settings.blob_limit_bytes)
        self.metrics = Metrics(self)
        self._slots = CellSlots(settings.max_running_cells, settings.max_waiting_cells)
        self._tasks: set[asyncio.Task[None]] = set()
        self._adding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._journal = Journal(
            store,
            server=self.instance,
            lease_s=settings.lease_s,
            on_moved=self._let_go,
            on_forgotten=lambda session_id: self._spawn(self._restore(session_id)),
            on_state=self._redis_answered,
        )
        self._runner = SessionRunner(
            settings,
            self.pool,
            self.blobs,
            self.metrics,
            on_abandoned=lambda session_id: self._spawn(self.close(session_id)),
        )
        self.redis_ok = True
        self.draining = False

    @property
    def running_cells(self) -> int:
        """Cells running now."""
        return self._runner.running_cells

    @property
    def zygote_restarts(self) -> int:
        """How often the zygote was lost and started again."""
        return self.pool.zygote.restarts

    @property
    def waiting_cells(self) -> int:
        """Cells that have no slot yet."""
        return self._slots.waiting

    def __len__(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Warm up, and check that Redis is there.

        Raises:
            StoreUnavailable: No Redis.
            KernelStartFailed: Sessions cannot be started here.
        """
        await self._store.beat(self.instance, self._settings.name)
        await self.pool.zygote.start()

    def start_background(self) -> None:
        """Keep spares, renew the heartbeat, end expired and oversized sessions."""
        memory = watch_memory(self._processes, self._settings.memory_limit_bytes)
        for coroutine in (
            self._expire(),
            self.pool.keep_spares(),
            self.pool.keep_well(),
            self._beat(),
            memory,
            self._journal.run(),
        ):
            self._spawn(coroutine)

    async def check_redis(self) -> None:
        """Ask Redis, and remember whether it answered."""
        with contextlib.suppress(StoreUnavailable):
            await self._on_store(self._store.ping())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Let running cells finish, then end every process and remove all files.

        Sessions stay in Redis: their next call moves them to another server.
        """
        self.draining = True
        deadline = time.monotonic() + self._settings.drain_s
        while self.running_cells and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runner.draining = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            session.closed = True
        await asyncio.gather(*(self._runner.drop(session) for session in sessions), return_exceptions=True)
        await self.pool.stop()
        with contextlib.suppress(StoreUnavailable):
            await self._store.leave(self.instance)
        await self._store.aclose()
        self._folder.remove()

    async def create(self, session_id: str, images: Sequence[str] = ()) -> int:
        """Open a session; opening one that exists is no error, so a client may repeat a lost request.

        Returns:
            How many cells it has run.

        Raises:
            TooManySessions: `max_sessions` are live, or memory is short, or the server is ending.
            BlobsMissing: Images have to be uploaded first.
            StoreUnavailable: Redis is down; a session that could not be registered is not created.
            KernelStartFailed: It did not start.
        """
        if (known := self._sessions.get(session_id)) is not None:
            return known.cells
        session = self._admit(session_id, images)
        try:
            await self._on_store(
                self._store.register(session_id, server=self.instance, images=images, lease_s=self._settings.lease_s)
            )
            async with session.lock:
                await self._runner.ensure(session)
        except BaseException:
            await self._discard(session)
            raise
        return 0

    def _admit(self, session_id: str, images: Sequence[str]) -> Session:
        if self.draining:
            raise TooManySessions("this server is ending; ask another one")
        limit = self._settings.max_sessions
        if len(self._sessions) >= limit:
            raise TooManySessions(
                f"{len(self._sessions)} of {limit} sessions are live; retry later, close sessions, or start more servers"
            )
        reserve = self._settings.memory_reserve_bytes
        if (available := available_bytes()) < reserve:
            raise TooManySessions(
                f"{available >> 20:,} MiB of memory are available and {reserve >> 20:,} MiB are kept in reserve; "
                "retry later, or lower memory_reserve_bytes"
            )
        self.blobs.hold(images)
        session = self._sessions[session_id] = Session(session_id, tuple(images))
        return session

    async def execute(self, session_id: str, request: ExecuteRequest) -> ExecuteResult:
        """Run one cell.

        Raises:
            UnknownSession: Not open anywhere: never opened, closed, or expired.
            SessionHeld: Another server has it, which was alive a moment ago.
            NotReplayable: Its server died, and its cells did not do the same again.
            OutOfStep: The caller has missed an answer.
            BlobsMissing: It moves here, and its images have to be uploaded first.
            Overloaded: Too many cells wait.
            QueueTimeout: No slot became free in time; nothing ran.
            KernelStartFailed: The process was lost earlier and a new one did not start.
        """
        session = self._sessions.get(session_id)
        replayed = 0
        if session is None:
            session, replayed = await self._move_here(session_id, request.cell)
        async with self._slots.turn(session.lock, request.queue_timeout_s) as waited_s:
            self.metrics.waited(waited_s)
            self._check_step(session, request.cell)
            try:
                return await self._run(session, request, replayed)
            except NotReplayable:
                self.metrics.lost("sessions")
                await self.close(session_id)
                raise

    def _check_step(self, session: Session, cell: int | None) -> None:
        if session.closed:
            raise UnknownSession(f"session {session.session_id!r} was closed while the cell waited")
        if cell is not None and cell != session.cells:
            raise OutOfStep(
                f"session {session.session_id!r} has run {session.cells} cells, but the caller has {cell} answers: "
                "an answer was lost on the way"
            )

    async def _run(self, session: Session, request: ExecuteRequest, replayed: int) -> ExecuteResult:
        """Run a cell in its slot and write it down."""
        result = await self._runner.run(session, request, replayed=replayed)
        number, entry = session.cells, None
        session.cells += 1
        if result.state_lost:
            session.history.begin_anew(session.cells)
        else:
            asked = {name: getattr(request, name) for name in REPEATED}
            entry = JournalEntry(status=result.status, digest=digest(result), **asked)
            session.history.add(entry, limit_bytes=self._settings.journal_limit_bytes)
        finished = Finished(
            session.session_id, number, result.status, entry, too_long=entry is not None and not session.history.whole
        )
        if request.cell is None:
            await self._journal.add_and_wait(finished)
        else:
            self._journal.add(finished)
        self.metrics.ran(result)
        about = {"session": session.session_id, "status": result.status, "ms": round(1000 * result.execution_time_s, 1)}
        if self._settings.log_code:
            about["code"] = request.code
        _LOG.debug("cell", extra=about)
        return result

    async def _move_here(self, session_id: str, cell: int | None) -> tuple[Session, int]:
        """Take over a session whose server is dead, and how many cells were run again for it."""
        lock = self._moving.setdefault(session_id, asyncio.Lock())
        try:
            async with lock:
                if (session := self._sessions.get(session_id)) is not None:
                    return session, 0
                return await self._take_over(session_id, cell)
        finally:
            self._moving.pop(session_id, None)

    async def _take_over(self, session_id: str, cell: int | None) -> tuple[Session, int]:
        known = await self._store.load(session_id)
        if known is None or known.server == self.instance:
            raise UnknownSession(f"no session {session_id!r}; it was closed, its lease ended, or it was never opened")
        alive = await self._store.alive(known.server)
        # A server of our own name is our former life.
        if alive is not None and alive != self._settings.name:
            raise SessionHeld(f"session {session_id!r} is on {alive}, which was alive a moment ago")
        try:
            entries = to_replay(session_id, known, cell)
            session = self._admit(session_id, known.images)
            try:
                async with session.lock:
                    if not await self._store.claim(session_id, held_by=known.server, server=self.instance):
                        raise SessionHeld(f"session {session_id!r} is just being moved by another server")
                    for entry in entries:
                        session.history.add(entry, limit_bytes=self._settings.journal_limit_bytes)
                    session.history.base, session.cells = known.base, known.base + len(entries)
                    async with self._slots.any():
                        await self._runner.ensure(session)
                await self._store.trim(session_id, cells=len(entries))
            except BaseException:
                await self._discard(session)
                with contextlib.suppress(StoreUnavailable):
                    # Not ours after all, so that another call may try again.
                    await self._store.claim(session_id, held_by=self.instance, server=known.server)
                raise
        except NotReplayable:
            self.metrics.lost("sessions")
            await self._store.forget(session_id)
            raise
        self.metrics.moved()
        _LOG.info("session moved here", extra={"session": session_id, "cells": len(entries), "from": known.server})
        return session, len(entries)

    async def add_image(self, sha256: str, data: bytes) -> None:
        """Keep a file that sessions may look at, once it has been decoded: what cannot be is refused now, not in a cell.

        It is decoded as cells are run, confined and limited, in a process that ends with it; once, if several send it.

        Raises:
            BadImage: The hash differs, or it is no readable image.
            KernelStartFailed: There is no process to decode it.
        """
        lock = self._adding.setdefault(sha256, asyncio.Lock())
        async with lock:
            if self.blobs.has(sha256):
                return
            await asyncio.to_thread(self.blobs.put, sha256, data)
            try:
                await self._runner.check_image(sha256)
            except BaseException as error:
                self.blobs.remove(sha256)
                if isinstance(error, BadImage):
                    raise BadImage(f"the image {sha256[:12]}… ({len(data):,} bytes) cannot be read: {error}") from error
                raise
            self.blobs.added(sha256, len(data))

    async def close(self, session_id: str) -> None:
        """Close a session; closing one that is gone is no error."""
        session = self._sessions.get(session_id)
        if session is not None:
            await self._discard(session)
        with contextlib.suppress(StoreUnavailable):
            await self._on_store(self._store.forget(session_id))

    async def _discard(self, session: Session) -> None:
        if session.closed:
            return
        session.closed = True
        self._sessions.pop(session.session_id, None)
        self.blobs.release(session.images)
        await self._runner.drop(session)

    async def _restore(self, session_id: str) -> None:
        """Write a session down again that Redis does not have, or not all of."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        with contextlib.suppress(StoreUnavailable):
            known = session.registered(self.instance)
            if not await self._store.restore(session_id, known, lease_s=self._settings.lease_s):
                self._let_go(session_id)

    def _let_go(self, session_id: str) -> None:
        """Another server has it; what we still hold of it is nobody's."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._spawn(self._discard(session))

    async def _on_store(self, call: Awaitable[_Result]) -> _Result:
        try:
            answer = await call
        except StoreUnavailable:
            self._redis_answered(False)
            raise
        self._redis_answered(True)
        return answer

    def _redis_answered(self, answered: bool) -> None:
        if self.redis_ok and not answered:
            _LOG.warning("Redis is down: live sessions go on, new ones are refused, none can move")
        self.redis_ok = answered

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self._settings.lease_s / 4))
            limit = time.monotonic() - self._settings.lease_s
            for session in list(self._sessions.values()):
                if session.last_used_s < limit and not session.lock.locked():
                    await self.close(session.session_id)

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                if not await self._on_store(self._store.beat(self.instance, self._settings.name)):
                    # It was emptied, or away for long: what it does not have of us is written down again.
                    _LOG.warning("Redis had forgotten this server", extra={"sessions": len(self._sessions)})
                    for session_id in list(self._sessions):
                        await self._restore(session_id)
            await asyncio.sleep(HEARTBEAT_S)

    def _processes(self, everyone: bool) -> list[SessionProcess]:
        """All, or those that run a cell or have just done so."""
        long_ago_s = time.monotonic() - _WATCHED_FOR_S
        return [
            session.kernel.process
            for session in self._sessions.values()
            if session.kernel is not None and (everyone or session.running_since_s or session.last_used_s > long_ago_s)
        ]
