"""Sessions: opening, running cells one at a time, expiring, closing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq.asyncio
from PIL import Image

from code_sandbox.server.forked import ForkedKernel
from code_sandbox.server.kernels import CellOutput, Kernel, KernelLimits, KernelStartFailed, Zygote
from code_sandbox.server.settings import Settings
from code_sandbox.server.store import SessionStore, StoreUnavailable
from code_sandbox.wire import CellError, CellImage, ExecuteResult, Health

_LOG = logging.getLogger(__name__)
_SPARE_RETRY_S = 5.0
_PRELOAD = "from PIL import Image as _I\n{lines}\ndel _I"
_PRELOAD_LINE = "image_{i} = _I.open({path!r}).convert('RGB')"


AnyKernel = Kernel | ForkedKernel


class UnknownSession(Exception):
    """No live session of this name here."""


class TooManySessions(Exception):
    """The server is full."""


class BadImage(Exception):
    """A supplied image cannot be read."""


@dataclass(slots=True)
class _Session:
    session_id: str
    images: tuple[bytes, ...]
    kernel: AnyKernel | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Cells of one session run one after the other."""
    last_used_s: float = field(default_factory=time.monotonic)
    closed: bool = False


class SessionManager:
    """All sessions of one server."""

    def __init__(self, settings: Settings, store: SessionStore) -> None:
        self._settings = settings
        self._store = store
        self._sessions: dict[str, _Session] = {}
        self._root = Path(tempfile.mkdtemp(prefix="dsb-"))
        self._zygote = Zygote(self._root, settings.backend)
        self._context = zmq.asyncio.Context()
        self._context.max_sockets = 65_535
        self._starts = asyncio.Semaphore(settings.max_starting_kernels)
        self._cells = asyncio.Semaphore(settings.max_running_cells)
        self._spares: list[AnyKernel] = []
        self._spare_taken = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._redis_ok = True

    async def start(self) -> None:
        """Warm up, and check that Redis is there.

        Raises:
            StoreUnavailable: No Redis.
            KernelStartFailed: Kernels cannot be started here.
        """
        await self._store.ping()
        await self._zygote.start()
        refusal = network_refusal(can_be_cut=self._zygote.network_can_be_cut, required=self._settings.require_no_network)
        if refusal is not None:
            await self._zygote.stop()
            raise KernelStartFailed(refusal)
        self._background = [asyncio.create_task(self._expire()), asyncio.create_task(self._keep_spares())]

    async def stop(self) -> None:
        """Close every session and remove all files."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        closing = [self.close(session_id) for session_id in list(self._sessions)]
        await asyncio.gather(*closing, *(kernel.kill() for kernel in self._spares), return_exceptions=True)
        await self._zygote.stop()
        self._context.destroy(linger=0)
        await self._store.aclose()
        shutil.rmtree(self._root, ignore_errors=True)

    async def create(self, session_id: str, images: Sequence[bytes], *, lease_s: float | None = None) -> None:
        """Open a session; opening one that exists is no error, so a client may repeat a lost request.

        Raises:
            TooManySessions: `max_sessions` are live.
            BadImage: An image cannot be read.
            StoreUnavailable: Redis is down; a session that could not be registered is not created.
            KernelStartFailed: The kernel did not start.
        """
        if session_id in self._sessions:
            return
        if len(self._sessions) >= self._settings.max_sessions:
            raise TooManySessions(
                f"{len(self._sessions)} of {self._settings.max_sessions} sessions are live; retry later, "
                "close sessions, or start more servers"
            )
        _check_images(images)
        session = _Session(session_id, tuple(images))
        self._sessions[session_id] = session
        try:
            await self._on_store(
                self._store.register(session_id, server=self._settings.name, lease_s=lease_s or self._settings.lease_s)
            )
            async with session.lock:
                await self._ensure_kernel(session)
        except BaseException:
            self._sessions.pop(session_id, None)
            await self._drop_kernel(session)
            raise

    async def execute(self, session_id: str, code: str, *, timeout_s: float) -> ExecuteResult:
        """Run one cell.

        Raises:
            UnknownSession: Not open here, or expired.
            KernelStartFailed: The kernel was lost earlier and a new one did not start.
        """
        session = self._get(session_id)
        async with session.lock:
            if session.closed:
                raise UnknownSession(f"session {session_id!r} was closed while the cell waited")
            session.last_used_s = time.monotonic()
            await self._ensure_kernel(session)
            assert session.kernel is not None
            async with self._cells:
                output = await session.kernel.execute(
                    code,
                    timeout_s=timeout_s,
                    interrupt_grace_s=self._settings.interrupt_grace_s,
                    max_chars=self._settings.max_output_chars,
                )
            if output.state_lost:
                await self._drop_kernel(session)
            session.last_used_s = time.monotonic()
        result = self._bounded(output)
        with contextlib.suppress(StoreUnavailable):
            await self._on_store(self._store.record_cell(session_id, status=result.status, lease_s=self._settings.lease_s))
        return result

    async def close(self, session_id: str) -> None:
        """Close a session; closing one that is gone is no error."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        session.closed = True
        await self._drop_kernel(session)
        with contextlib.suppress(StoreUnavailable):
            await self._on_store(self._store.forget(session_id))

    def has(self, session_id: str) -> bool:
        """Whether the session is live here."""
        return session_id in self._sessions

    async def health(self) -> Health:
        """State of this server."""
        with contextlib.suppress(StoreUnavailable):
            await self._on_store(self._store.ping())
        return Health(
            status="ok" if self._redis_ok else "degraded",
            server_id=self._settings.name,
            sessions=len(self._sessions),
            max_sessions=self._settings.max_sessions,
            redis="ok" if self._redis_ok else "down",
            isolation=self._isolation(),
        )

    def _isolation(self) -> str:
        network = (
            "no network" if self._zygote.network_can_be_cut else "NETWORK OPEN: this system allows no network namespace"
        )
        return f"resource limits, no new privileges, own directory, scrubbed environment, {network}"

    async def counters(self) -> dict[str, int]:
        """Totals over all servers of the registry."""
        return await self._store.counters()

    def _get(self, session_id: str) -> _Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise UnknownSession(
                f"no session {session_id!r} on this server; it was closed, its lease ended, or the server restarted"
            ) from None

    async def _on_store(self, call: Awaitable[None]) -> None:
        try:
            await call
        except StoreUnavailable:
            if self._redis_ok:
                _LOG.warning("Redis is down: live sessions go on, new ones are refused")
            self._redis_ok = False
            raise
        self._redis_ok = True

    async def _ensure_kernel(self, session: _Session) -> None:
        if session.kernel is not None and not session.kernel.exited.is_set():
            return
        await self._drop_kernel(session)
        session.kernel = await self._take_kernel()
        if session.images:
            await self._preload(session, session.kernel)

    async def _take_kernel(self) -> AnyKernel:
        while self._spares:
            kernel = self._spares.pop(0)
            self._spare_taken.set()
            if not kernel.exited.is_set():
                return kernel
            await kernel.kill()
        return await self._start_kernel()

    async def _start_kernel(self) -> AnyKernel:
        settings = self._settings
        limits = KernelLimits(settings.memory_limit_bytes, settings.file_limit_bytes, settings.start_timeout_s)
        async with self._starts:
            if settings.backend == "jupyter":
                return await Kernel.start(self._zygote, self._context, root=self._root, limits=limits)
            return await ForkedKernel.start(self._zygote, root=self._root, limits=limits)

    async def _keep_spares(self) -> None:
        while True:
            if len(self._spares) >= self._settings.spare_kernels:
                self._spare_taken.clear()
                await self._spare_taken.wait()
            try:
                self._spares.append(await self._start_kernel())
            except KernelStartFailed as error:
                _LOG.warning("no spare kernel: %s", error)
                await asyncio.sleep(_SPARE_RETRY_S)

    async def _preload(self, session: _Session, kernel: AnyKernel) -> None:
        lines = []
        for number, data in enumerate(session.images, start=1):
            path = kernel.directory / f"image_{number}"
            await asyncio.to_thread(path.write_bytes, data)
            lines.append(_PRELOAD_LINE.format(i=number, path=str(path)))
        output = await kernel.execute(
            _PRELOAD.format(lines="\n".join(lines)),
            timeout_s=self._settings.start_timeout_s,
            interrupt_grace_s=self._settings.interrupt_grace_s,
            max_chars=1000,
            silent=True,
        )
        if output.status != "ok":
            raise BadImage(f"the images could not be preloaded: {output.error[1] if output.error else output.status}")

    async def _drop_kernel(self, session: _Session) -> None:
        kernel, session.kernel = session.kernel, None
        if kernel is not None:
            await kernel.kill()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self._settings.lease_s / 4))
            limit = time.monotonic() - self._settings.lease_s
            for session in list(self._sessions.values()):
                if session.last_used_s < limit and not session.lock.locked():
                    await self.close(session.session_id)

    def _bounded(self, output: CellOutput) -> ExecuteResult:
        limit = self._settings.max_output_chars
        notes: list[str] = []
        images: list[CellImage] = []
        for mime, data in output.images[: self._settings.max_images]:
            # PNG and JPEG state their size in the first bytes; nothing is decoded here.
            if len(data) > self._settings.max_image_bytes * 4 // 3:
                limit_bytes = self._settings.max_image_bytes
                notes.append(f"[an image of {len(data) * 3 // 4:,} bytes was dropped; the limit is {limit_bytes:,}]")
                continue
            try:
                with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                    width_px, height_px = image.size
            except (OSError, ValueError, binascii.Error, Image.DecompressionBombError) as problem:
                notes.append(f"[an image was dropped: {problem}]")
                continue
            images.append(
                CellImage.model_validate({"mime": mime, "data": data, "width_px": width_px, "height_px": height_px})
            )
        if len(output.images) > self._settings.max_images:
            notes.append(f"[{len(output.images) - self._settings.max_images} more images were dropped]")
        error = None
        if output.error is not None:
            name, message, traceback = output.error
            error = CellError(name=name, message=truncate(message, limit), traceback=truncate(traceback, limit))
        stderr = truncate("".join(output.stderr), limit)
        return ExecuteResult(
            status=output.status,  # type: ignore[arg-type]
            stdout=truncate("".join(output.stdout), limit),
            stderr="\n".join(part for part in (stderr.rstrip("\n"), *notes) if part),
            result=truncate(output.result, limit),
            error=error,
            images=images,
            execution_time_s=output.execution_time_s,
            state_lost=output.state_lost,
        )


def network_refusal(*, can_be_cut: bool, required: bool) -> str | None:
    """Why a server must not start here; None if it may."""
    if can_be_cut or not required:
        return None
    return (
        "sessions cannot be kept off the network here: unsharing a network namespace was refused. Run as root, or "
        "where unprivileged user namespaces are allowed, or accept it with --allow-network"
    )


def truncate(text: str, limit: int) -> str:
    """Cut text to `limit` characters with a visible mark at the end."""
    return text if len(text) <= limit else text[:limit] + f"\n[output cut at {limit:,} characters]"


def _check_images(images: Sequence[bytes]) -> None:
    for number, data in enumerate(images, start=1):
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadImage(f"image_{number} ({len(data):,} bytes) cannot be read: {error}") from error


__all__ = [
    "BadImage",
    "KernelStartFailed",
    "SessionManager",
    "TooManySessions",
    "UnknownSession",
    "network_refusal",
    "truncate",
]
