"""The server's side of the zygote (zygote_process.py): started, asked for sessions, and started again when it cannot be
trusted any more.

There is one socket for all requests, so a reply that nobody has read would be taken for that of the next request, and every
session from then on would be another one's. Therefore each request has a number that its reply repeats, the exchange runs
to its end whether or not its caller still waits, and whatever does not fit ends the zygote with all that it has forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from code_sandbox.errors import KernelStartFailed, ZygoteEnded
from code_sandbox.server import cgroups
from code_sandbox.server.confinement import Layers, SessionRequest
from code_sandbox.server.session_process import SessionProcess
from code_sandbox.server.uids import UidBlock

_LOG = logging.getLogger(__name__)
_MAX_MESSAGE_BYTES = 1 << 16
_STARTED_WITHIN_S = 120.0
_ANSWERED_WITHIN_S = 10.0
_NUDGED_AFTER_S = 1.0
_ENDED_WITHIN_S = 2.0
_ROOM_BYTES = {"fork": 64 << 20, "jupyter": 640 << 20}
"""Address space that a session wants beyond what it is forked with, to run anything at all; a Jupyter kernel has threads."""
_ROUND_BYTES = 64 << 20
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "PYTHONUNBUFFERED",
)
_Result = TypeVar("_Result")


class Zygote:
    """The process that sessions are forked from. Restarted by the next fork if it died.

    Args:
        root: The server's own directory.
        backend: `fork` or `jupyter`.
        limits: Of every session.
        uid_base: First of a range of user ids that nothing else on the machine uses.
        without: Layers of `confinement.LAYERS` to leave out.
        groups: Control groups that are ours alone; every session gets one below each.
    """

    def __init__(
        self,
        root: Path,
        *,
        backend: str,
        limits: SessionRequest,
        uid_base: int,
        without: tuple[str, ...] = (),
        groups: tuple[str, ...] = (),
    ) -> None:
        self._root = root
        self._backend = backend
        self._limits = limits
        self._uids = UidBlock(uid_base) if os.geteuid() == 0 else None
        self._without = without
        self.groups = groups
        self._numbers = itertools.count(1)
        self.layers = Layers()
        """What keeps sessions from the host; known once started."""
        self.restarts = 0
        """How often it was lost and started again."""
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        for name in ("sessions", "matplotlib", "ipython"):
            (root / name).mkdir(exist_ok=True)
        # Sessions of another user pass through, and see no names.
        root.chmod(0o711)
        (root / "sessions").chmod(0o711)

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._process.pid if self._process is not None else 0

    @property
    def state(self) -> Literal["ok", "stopped", "ended"]:
        """How it is; one that was never started has ended."""
        if self._process is None or self._process.returncode is not None:
            return "ended"
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return "ended"
        letter = stat.rpartition(")")[2].split()[0]
        return "stopped" if letter in "Tt" else "ended" if letter in "ZX" else "ok"

    async def start(self) -> None:
        """Start and wait until warm."""
        async with self._lock:
            await self._ensure()

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.returncode is None and self._control is not None:
            return self._control
        await self._end()
        cgroups.prepare(self.groups)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        first_time = self._process is None
        self.restarts += not first_time
        with theirs:
            self._process = await self._start(theirs.fileno())
        self._control = control
        try:
            layers = await self._ready(control)
            if not first_time and layers.names != self.layers.names:
                # What was measured at start must hold for every session.
                raise KernelStartFailed(
                    f"a new zygote has only {', '.join(layers.names)}: {layers.missing}; restart the server"
                )
        except BaseException:
            await self._end()
            raise
        self.layers = layers
        return control

    async def _start(self, control: int) -> asyncio.subprocess.Process:
        environment = {
            name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
        }
        # One thread each: a hundred sessions with a BLAS pool per core would starve the machine. The same order of sets
        # in every server, so that a session's cells can be replayed on another one.
        environment |= dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONHASHSEED": "0"}
        environment |= {"MPLCONFIGDIR": str(self._root / "matplotlib"), "IPYTHONDIR": str(self._root / "ipython")}
        # PyArrow comes with pandas, and its allocator would start a thread, which does not survive a fork.
        environment |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "code_sandbox.server.zygote_process", str(control)),
            *(
                self._backend,
                str(self._root),
                str(self._uids.first if self._uids else 0),
                ",".join(self._without),
                ":".join(self.groups),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(control,),
            # A signal to the server's group must not end it while running cells may still finish.
            start_new_session=True,
            env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )

    async def _ready(self, control: socket.socket) -> Layers:
        try:
            async with asyncio.timeout(_STARTED_WITHIN_S):
                first, _ = await _receive(control)
        except (OSError, ValueError) as error:
            raise KernelStartFailed(
                f"the zygote was not ready ({error or 'too slow'}); what it wrote is in this server's output above"
            ) from error
        if first["threads"] != 1:
            raise KernelStartFailed(f"the zygote has {first['threads']} threads and cannot be forked safely")
        limit, size = self._limits.memory_bytes, first["address_space_bytes"]
        wanted = size + _ROOM_BYTES[self._backend]
        if limit < wanted:
            # No two starts have the same size; what is asked for must do for the next one.
            enough = (wanted // _ROUND_BYTES + 2) * _ROUND_BYTES
            raise KernelStartFailed(
                f"memory_limit_bytes is {limit:,}, but a session begins with {size:,} bytes of address space: set at least "
                f"{enough:,}"
            )
        return Layers(**first["layers"])

    async def _end(self) -> None:
        """End the zygote, and with it every session that it has forked."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def fork(self, *, connection: socket.socket, directory: Path | None, connection_file: str = "") -> SessionProcess:
        """Fork one session.

        Args:
            connection: The session's end of its connection to the server; closed here.
            directory: That both sides see, or None.
            connection_file: For a Jupyter kernel.

        Raises:
            ZygoteEnded: Its answer never came; the next fork starts a new one.
            KernelStartFailed: It could not be forked.
        """
        try:
            await self._lock.acquire()
        except BaseException:
            connection.close()
            raise
        # Nothing between here and the task may wait, or the lock could be lost with its caller.
        exchange = self._spawn(self._fork_in_turn(connection, directory, connection_file))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            exchange.add_done_callback(self._end_unwanted)
            raise

    def _end_unwanted(self, exchange: asyncio.Task[SessionProcess]) -> None:
        if not exchange.cancelled() and exchange.exception() is None:
            self._spawn(exchange.result().end())

    async def _fork_in_turn(self, connection: socket.socket, directory: Path | None, connection_file: str) -> SessionProcess:
        try:
            with connection:
                return await self._fork(await self._ensure(), connection, directory, connection_file)
        finally:
            self._lock.release()

    async def _fork(
        self, control: socket.socket, connection: socket.socket, directory: Path | None, connection_file: str
    ) -> SessionProcess:
        number = next(self._numbers)
        uid = self._uids.take() if self._uids is not None and self.layers.uid_base else 0
        group = f"s{os.getpid()}-{number}" if self.layers.cgroups else ""
        request = replace(
            self._limits,
            uid=uid,
            directory=str(directory) if directory else "",
            connection_file=connection_file,
            cgroup=group,
        )
        last_word, their_end = os.pipe()
        try:
            if directory is not None and uid:
                os.chown(directory, uid, uid)
            body = json.dumps({"number": number, "session": asdict(request)}).encode()
            reply, descriptors = await self._ask(control, body, [connection.fileno(), their_end])
            if reply.get("number") != number:
                raise ValueError(f"it answered {reply.get('number')!r} to request {number}")
        except (OSError, ValueError) as error:
            # What it has forked by now is not known, so all of it ends.
            os.close(last_word)
            await self._end()
            self._release(uid, group)
            reason = str(error) or "no answer"
            _LOG.warning("the zygote was ended: %s", reason)
            raise ZygoteEnded(f"the zygote ended ({reason}); the next start makes a new one") from error
        finally:
            os.close(their_end)
        if "error" in reply:
            os.close(last_word)
            self._release(uid, group)
            raise KernelStartFailed(str(reply["error"]))
        return SessionProcess(
            descriptors[0] if descriptors else None,
            last_word,
            pid=int(reply["pid"]),
            by_namespace=self.layers.namespaces,
            directory=directory,
            cgroup=group,
            released=lambda: self._release(uid, group),
            spawn=self._spawn,
        )

    async def _ask(self, control: socket.socket, body: bytes, descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
        socket.send_fds(control, [body], descriptors)
        # Somebody may have stopped it; nothing else than a signal makes it go on.
        nudge = asyncio.get_running_loop().call_later(_NUDGED_AFTER_S, self.nudge)
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                return await _receive(control)
        finally:
            nudge.cancel()

    def nudge(self) -> None:
        """Let it go on if somebody has stopped it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)

    def _release(self, uid: int, group: str) -> None:
        """Nothing of a session is left."""
        if uid and self._uids is not None:
            self._uids.free(uid)
        if group:
            cgroups.remove(self.groups, group)

    async def stop(self) -> None:
        """End the zygote and all its sessions."""
        if self._control is not None:
            # A reader of ours notices this too, which it would not if we closed it.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _ENDED_WITHIN_S)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ENDED_WITHIN_S)
        await self._end()
        if self._uids is not None:
            self._uids.release()


async def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The zygote's next message, and the descriptors that came with it.

    Raises:
        OSError: It has hung up.
        ValueError: The message is none.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(control.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control.fileno())
    body, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 1)
    if not body:
        raise ConnectionResetError("it hung up")
    return dict(json.loads(body)), list(descriptors)
