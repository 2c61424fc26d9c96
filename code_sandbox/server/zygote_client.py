"""The server's side of the zygote (zygote.py), and what both back-ends' sessions have in common."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from code_sandbox.errors import KernelStartFailed
from code_sandbox.server import cgroups
from code_sandbox.server.confinement import Layers, SessionRequest

_MAX_MESSAGE_BYTES = 1 << 16
_STARTED_WITHIN_S = 120.0


class UidBlock:
    """A range of user ids that no other sandbox server of this machine uses.

    Limits on processes are counted by user, so two servers must not share one. A name in the abstract socket namespace is
    the lock: it goes with its process, however that ends.
    """

    _SIZE = 65_536
    _BLOCKS = 4096

    def __init__(self, base: int) -> None:
        self._lock = socket.socket(socket.AF_UNIX)
        for number in range(self._BLOCKS):
            try:
                self._lock.bind(f"\0deepeyes-sandbox-uids-{base}-{number}")
            except OSError:
                continue
            self.first = base + number * self._SIZE
            """The first of them."""
            return
        self._lock.close()
        raise KernelStartFailed(f"all {self._BLOCKS} ranges of user ids from {base} on are taken; choose another uid_base")

    def release(self) -> None:
        """Let another server have it. Safe to call twice."""
        self._lock.close()


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
        self._forked = itertools.count()
        self._free_uids: list[int] = []
        self._next_uid = self._uids.first if self._uids else 0
        self.layers = Layers()
        """What keeps sessions from the host; known once started."""
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        for name in ("sessions", "matplotlib", "ipython"):
            (root / name).mkdir(exist_ok=True)
        # Sessions of another user pass through, and see no names.
        root.chmod(0o711)
        (root / "sessions").chmod(0o711)

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start and wait until warm."""
        async with self._lock:
            await self._ensure()

    async def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.returncode is None and self._control is not None:
            return self._control
        if self._control is not None:
            self._control.close()
        environment = {
            name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
        }
        # One thread each: a hundred sessions with a BLAS pool per core would starve the machine. The same order of sets
        # in every server, so that a session's cells can be replayed on another one.
        environment |= dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "PYTHONUNBUFFERED"), "1"
        )
        environment |= {"PYTHONHASHSEED": "0"}
        environment |= {"MPLCONFIGDIR": str(self._root / "matplotlib"), "IPYTHONDIR": str(self._root / "ipython")}
        # PyArrow comes with pandas, and its allocator would start a thread, which does not survive a fork.
        environment |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
        cgroups.prepare(self.groups)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "code_sandbox.server.zygote_process", str(theirs.fileno())),
                *(
                    self._backend,
                    str(self._root),
                    str(self._uids.first if self._uids else 0),
                    ",".join(self._without),
                    ":".join(self.groups),
                ),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # A signal to the server's group must not end it while running cells may still finish.
                start_new_session=True,
                env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )
        try:
            async with asyncio.timeout(_STARTED_WITHIN_S):
                first = await _receive(control)
        except TimeoutError:
            process.kill()
            first = None
        if first is None:
            control.close()
            raise KernelStartFailed("the zygote ended before it was ready; what it wrote is in this server's output above")
        if first["threads"] != 1:
            raise KernelStartFailed(f"the zygote has {first['threads']} threads and cannot be forked safely")
        layers = Layers(**first["layers"])
        if self._process is not None and layers.names != self.layers.names:
            # What was measured at start must hold for every session.
            control.close()
            raise KernelStartFailed(f"a new zygote has only {', '.join(layers.names)}: {layers.missing}; restart the server")
        self.layers = layers
        self._process, self._control = process, control
        return control

    async def fork(self, *, connection: socket.socket, directory: Path | None, connection_file: str = "") -> SessionProcess:
        """Fork one session.

        Args:
            connection: The session's end of its connection to the server; closed here.
            directory: That both sides see, or None.
            connection_file: For a Jupyter kernel.

        Raises:
            KernelStartFailed: It could not be forked.
        """
        async with self._lock:
            with connection:
                control = await self._ensure()
                uid = self._take_uid()
                group = f"s{os.getpid()}-{next(self._forked)}" if self.layers.cgroups else ""
                request = replace(
                    self._limits,
                    uid=uid,
                    directory=str(directory) if directory else "",
                    connection_file=connection_file,
                    cgroup=group,
                )
                try:
                    if directory is not None and uid:
                        os.chown(directory, uid, uid)
                    socket.send_fds(control, [json.dumps(asdict(request)).encode()], [connection.fileno()])
                    reply = await _receive(control)
                except OSError as error:
                    self.free_uid(uid)
                    raise KernelStartFailed(f"the zygote ended: {error}") from error
            if reply is None or "error" in reply:
                self.free_uid(uid)
                if reply is None and self._process is not None:
                    await self._process.wait()
                raise KernelStartFailed(
                    "the zygote ended while forking; the next start makes a new one" if reply is None else reply["error"]
                )
        return SessionProcess(self, pid=int(reply["pid"]), uid=uid, directory=directory, cgroup=group)

    def _take_uid(self) -> int:
        if not self.layers.uid_base:
            return 0
        if self._free_uids:
            return self._free_uids.pop()
        self._next_uid += 1
        return self._next_uid - 1

    def free_uid(self, uid: int) -> None:
        """Let another session have it. Nothing that runs as this user may be left."""
        if uid:
            self._free_uids.append(uid)

    async def stop(self) -> None:
        """End the zygote and all its sessions."""
        if self._uids is not None:
            self._uids.release()
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is None or process.returncode is not None:
            return
        try:
            await asyncio.wait_for(process.wait(), 2.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _receive(control: socket.socket) -> dict[str, Any] | None:
    """The zygote's next message; None when it has hung up."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(control.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control.fileno())
    try:
        body = control.recv(_MAX_MESSAGE_BYTES)
    except ConnectionError:
        return None
    return dict(json.loads(body)) if body else None


class SessionProcess:
    """A forked session: seen to exit at once through a pidfd, killed with all it started."""

    def __init__(self, zygote: Zygote, *, pid: int, uid: int, directory: Path | None, cgroup: str) -> None:
        self._zygote = zygote
        self.cgroup = cgroup
        """Name of its control group; empty if it has none."""
        self._uid = uid
        self.directory = directory
        self.pid = pid
        """Of the session's init."""
        self.exited = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1
            self.exited.set()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.exited.set()

    def signal(self, number: int) -> None:
        """Send a signal to the session's init; to a process that is gone, nothing happens."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self) -> None:
        """Kill the session with all that it started and remove its directory. Safe to call twice."""
        if self._pidfd >= 0:
            if not self._zygote.layers.namespaces:
                # Without a process namespace, its init has to hunt its children down.
                self.signal(signal.SIGTERM)
                await self._wait()
            self.signal(signal.SIGKILL)
            await self._wait()
            pidfd, self._pidfd = self._pidfd, -1
            if pidfd >= 0:
                asyncio.get_running_loop().remove_reader(pidfd)
                os.close(pidfd)
        uid, self._uid = self._uid, 0
        if self.exited.is_set():
            self._zygote.free_uid(uid)
        self.exited.set()
        directory, self.directory = self.directory, None
        if directory is not None:
            await asyncio.to_thread(shutil.rmtree, directory, True)
        if self.cgroup:
            await asyncio.to_thread(cgroups.remove, self._zygote.groups, self.cgroup)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), 5.0)


def make_directory(root: Path) -> Path:
    """A directory that the server and one session share."""
    return Path(tempfile.mkdtemp(prefix="k", dir=root / "sessions"))
