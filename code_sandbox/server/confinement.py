"""What keeps a cell from the host: worked out once in the zygote, applied in every session before it runs anything.

    always        resource limits, no_new_privs, a scrubbed environment, a directory of its own
    seccomp       dangerous system calls refused; no sockets but Unix sockets (seccomp.py)
    landlock      files by allow-list, no signals and no abstract sockets to others (landlock.py)
    uids          as root: a user of its own for every session, taken from a range nobody else uses
    namespaces    its own processes, mounts and System V IPC; a root file system that holds the interpreter, the
                  libraries, a few devices and a size-capped directory to write to (view.py); a network without
                  interfaces. Unprivileged through a user namespace
    cgroups       memory and processes of a session limited together, where the operator has set groups aside (cgroups.py)

Whatever the system forbids is left out and said (`Layers.missing`); what is left is measured by probes.py, which alone
decides the level. Nothing here is imported by the server's own process except names and types.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from code_sandbox.server import cgroups, landlock, linux, own_tmp, seccomp, view

LAYERS = ("seccomp", "landlock", "uids", "namespaces", "cgroups")
SESSION_SOCKET = 3
_LAST_WORD = 4
"""Of the session's init: where it says how the worker ended."""
LENGTH = struct.Struct(">I")
"""Before every message on a session's socket."""
OUTPUT = 1
_DESCRIPTORS_FROM = 64
_TRIAL_BYTES = 16 << 20
_PENDING_SIGNALS = 1024


@dataclass(frozen=True, slots=True)
class Layers:
    """What the system allows."""

    seccomp: bool = False
    landlock_abi: int = 0
    uid_base: int = 0
    """First user id of the sessions; 0 where they run as the server's user."""
    namespaces: bool = False
    user_namespace: bool = False
    cgroups: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    """Layer -> why not."""

    def as_dict(self) -> dict[str, Any]:
        """The layers as the message to the server holds them."""
        return asdict(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are there."""
        present = (self.seccomp, self.landlock_abi > 0, self.uid_base > 0, self.namespaces, self.cgroups)
        return tuple(name for name, there in zip(LAYERS, present, strict=True) if there)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionRequest:
    """What the server asks the zygote for. The limits and their defaults are those of `settings.Settings`."""

    memory_bytes: int
    file_bytes: int
    tmp_bytes: int
    processes: int
    cpu_s: int
    open_files: int = 1024
    directory: str = ""
    """On the host, for files that both sides see; empty if none is needed."""
    uid: int = 0
    """0: stay who we are."""
    cgroup: str = ""
    """Name of its control group; empty if there is none."""
    connection_file: str = ""
    """Jupyter only, as the kernel sees it."""


class Confinement:
    """Made once in the zygote, before anything is forked from it."""

    def __init__(self, server_root: str, *, uid_base: int, without: Collection[str], groups: Sequence[str] = ()) -> None:
        self._server_root = server_root
        missing = dict.fromkeys(without, "switched off")
        self._readable = view.readable_paths()
        self._parent = os.geteuid(), os.getegid()
        uid_base = self._usable_uids(uid_base, without, missing)
        self._cgroups = [] if "cgroups" in without else [_open_path(root) for root in groups]
        if not self._cgroups:
            missing.setdefault("cgroups", "none was set aside (--cgroup)")
        namespaces, user_namespace = self._usable_namespaces(without, missing)
        landlock_abi = 0 if "landlock" in without else landlock.abi()
        if not landlock_abi:
            missing.setdefault("landlock", "this kernel has none (5.13 and later can have it)")
        self.layers = Layers(
            seccomp=_works(self._try_seccomp, "seccomp", without, missing),
            landlock_abi=landlock_abi,
            uid_base=uid_base,
            namespaces=namespaces,
            user_namespace=user_namespace,
            cgroups=bool(self._cgroups),
            missing=missing,
        )
        if namespaces:
            self._parent = view.enter(self._server_root, self._readable, user_namespace=user_namespace)
            if uid_base and not _readable_by(uid_base, self._readable):
                # Said, not fatal: capabilities are dropped all the same.
                missing["uids"] = "the interpreter cannot be read by other users"
                self.layers = Layers(**self.layers.as_dict() | {"uid_base": 0})
        self._rules = [_open_path(path) for path in self._readable]
        self._devices = [_open_path(path) for path in view.DEVICES if os.path.exists(path)]

    def _usable_uids(self, uid_base: int, without: Collection[str], missing: dict[str, str]) -> int:
        if "uids" in without:
            return 0
        if os.geteuid() != 0 or linux.failure_in_child(lambda: os.setresuid(uid_base, uid_base, uid_base)):
            missing["uids"] = "needs root"
            return 0
        if "namespaces" in without and not _readable_by(uid_base, self._readable):
            missing["uids"] = f"other users cannot read {sys.prefix} or {sys.base_prefix}; install where they can"
            return 0
        return uid_base

    def _usable_namespaces(self, without: Collection[str], missing: dict[str, str]) -> tuple[bool, bool]:
        if "namespaces" in without:
            return False, False
        reasons = []
        for user_namespace in ([False] if os.geteuid() == 0 else []) + [True]:
            reason = linux.failure_in_child(partial(self._try_view, user_namespace))
            if reason is None:
                return True, user_namespace
            reasons.append(reason)
        missing["namespaces"] = "; ".join(reasons)
        return False, False

    def _try_view(self, user_namespace: bool) -> None:
        """A whole session's worth of namespaces, in a process that is thrown away."""
        self._parent = view.enter(self._server_root, self._readable, user_namespace=user_namespace)
        mounts = partial(
            view.add_own_mounts,
            directory="",
            uid=0,
            tmp_bytes=_TRIAL_BYTES,
            parent=self._parent if user_namespace else None,
        )
        reason = linux.failure_in_child(mounts, flags=view.session_flags(user_namespace))
        if reason is not None:
            raise OSError(reason)

    @staticmethod
    def _try_seccomp() -> None:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(seccomp.NOTHING)

    def fork_session(self, request: SessionRequest, connection: int, last_word: int) -> int:
        """Fork a session's first process. In the parent returns its id; in the session's worker returns 0, confined.

        The first process stays behind as the session's init: it passes SIGINT on, reaps, and takes everything that the
        session has started with it when the worker ends. Before that it writes the worker's status to `last_word`, so an end
        without a word is none that the session's own code could have brought about.

        Raises:
            OSError: In the parent: no process could be made. In the worker: a layer that worked at start did not.
        """
        flags = view.session_flags(self.layers.user_namespace) if self.layers.namespaces else 0
        pid = linux.fork_into(flags)
        if pid:
            return pid
        # In the place of the zygote's own connection to the server; copied first, because either may have either's number.
        connection, last_word = (
            fcntl.fcntl(descriptor, fcntl.F_DUPFD, _DESCRIPTORS_FROM) for descriptor in (connection, last_word)
        )
        os.dup2(connection, SESSION_SOCKET)
        os.dup2(last_word, _LAST_WORD)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        linux.die_with_parent()
        for root in self._cgroups:
            # Its init counts too.
            cgroups.join(root, request.cgroup, memory_bytes=request.memory_bytes, processes=request.processes + 1)
        if self.layers.namespaces:
            view.add_own_mounts(
                directory=request.directory,
                uid=request.uid,
                tmp_bytes=request.tmp_bytes,
                parent=self._parent if self.layers.user_namespace else None,
            )
        else:
            linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        worker = os.fork()
        if worker:
            _supervise(worker, alone=self.layers.namespaces)
        linux.die_with_parent()
        os.setsid()
        _be_first_to_go()
        self._confine_worker(request)
        return 0

    def use_own_tmp(self, request: SessionRequest) -> None:
        """Let `/tmp` mean a folder of the session's own, where it has no view of its own."""
        if not self.layers.namespaces:
            own_tmp.use(_tmp_of(request), kept=[request.directory, *self._readable])

    def _confine_worker(self, request: SessionRequest) -> None:
        inside = self.layers.namespaces
        if inside:
            own, home = view.OWN, view.HOME
        else:
            own, home = request.directory, os.path.join(request.directory, "work")
            os.mkdir(home)
            os.mkdir(_tmp_of(request))
        os.chdir(home)
        _standard_streams(os.path.join(own, "output"))
        os.environ.update(
            HOME=home, TMPDIR=home, IPYTHONDIR=os.path.join(own, "ipython"), MPLCONFIGDIR=os.path.join(own, "matplotlib")
        )
        writable = [_open_path(own), *([_open_path(view.TMP)] if inside else [])]
        readable = [*self._rules, _open_path("/proc")] if inside else self._rules
        _set_limits(request, own_user=bool(request.uid) or self.layers.user_namespace)
        if request.uid:
            for path in (home,) if inside else (home, _tmp_of(request)):
                os.chown(path, request.uid, request.uid)
            os.fchown(OUTPUT, request.uid, request.uid)
            os.setgroups([])
            os.setresgid(request.uid, request.uid, request.uid)
            os.setresuid(request.uid, request.uid, request.uid)
            # Changing the user forgets it.
            linux.die_with_parent()
        elif os.geteuid() == 0 or self.layers.user_namespace:
            linux.drop_capabilities()
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        if self.layers.landlock_abi:
            landlock.restrict(
                self.layers.landlock_abi,
                readable=[rule for rule in readable if rule >= 0],
                writable=writable,
                devices=self._devices,
            )
        os.closerange(SESSION_SOCKET + 1, 4096)
        if self.layers.seccomp:
            alone = inside or self.layers.uid_base > 0 or self.layers.landlock_abi >= landlock.SIGNAL_SCOPE_ABI
            seccomp.install(
                seccomp.Allowed(
                    unix_sockets=inside or bool(request.connection_file),
                    connecting=inside,
                    signalling=alone,
                    metadata=inside,
                    modes=inside or bool(request.uid),
                    truncating=inside or self.layers.landlock_abi >= landlock.TRUNCATE_ABI,
                )
            )


def _tmp_of(request: SessionRequest) -> str:
    """What stands for `/tmp` in a session that has no view of its own."""
    return os.path.join(request.directory, "tmp")


def _open_path(path: str) -> int:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    # Out of the way of SESSION_SOCKET.
    descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTORS_FROM)
    os.close(opened)
    return descriptor


def _standard_streams(output: str) -> None:
    """Nothing in, everything out into a file that the worker empties after each cell."""
    null = os.open(os.devnull, os.O_RDONLY)
    sink = os.open(output, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(sink, OUTPUT)
    os.dup2(sink, 2)
    # closefd: ipykernel drops these objects, and the descriptors must outlive them for what subprocesses write.
    sys.stdin, sys.stdout, sys.stderr = (open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115


def _set_limits(request: SessionRequest, *, own_user: bool) -> None:
    limits = [
        (resource.RLIMIT_AS, request.memory_bytes),
        (resource.RLIMIT_FSIZE, request.file_bytes),
        (resource.RLIMIT_NOFILE, request.open_files),
        (resource.RLIMIT_CPU, request.cpu_s),
        (resource.RLIMIT_MEMLOCK, 0),
        # Counted by user, and sessions without one of their own share it.
        (resource.RLIMIT_SIGPENDING, _PENDING_SIGNALS),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_CORE, 0),
    ]
    if own_user:
        # Counted by user: without one of its own, a session would be charged for everybody else's processes.
        limits.append((resource.RLIMIT_NPROC, request.processes))
    for limit, value in limits:
        _, most = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            value = min(value, most)
        resource.setrlimit(limit, (value, value))
    # The server, the trainer and the inference engine go first.
    os.nice(5)


def _be_first_to_go() -> None:
    """When memory runs out, the kernel takes this process and what it starts: not the server, and not the session's init,
    whose end would look like an outage of ours.
    """
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        return


def _supervise(worker: int, *, alone: bool) -> NoReturn:
    """Init of one session. `alone`: first process of a namespace, whose end is everybody's end."""
    # Nobody of the session may look into this process, which has not dropped its privileges.
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    os.closerange(0, _LAST_WORD)
    os.closerange(_LAST_WORD + 1, 4096)

    def pass_on(number: int, as_number: int) -> None:
        def handle(*_: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                # The worker leads a group: a child that it waits for is interrupted too.
                os.killpg(worker, as_number)

        signal.signal(number, handle)

    pass_on(signal.SIGINT, signal.SIGINT)
    pass_on(signal.SIGTERM, signal.SIGKILL)
    try:
        while (ended := os.wait())[0] != worker:
            pass
        os.write(_LAST_WORD, str(ended[1]).encode())
        while not alone:
            # The worker's orphans are our children now, and theirs will be when they end.
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            os.wait()
    except OSError:
        pass
    finally:
        os._exit(0)


def _works(attempt: Callable[[], object], name: str, without: Collection[str], missing: dict[str, str]) -> bool:
    if name in without:
        return False
    reason = linux.failure_in_child(attempt)
    if reason is not None:
        missing[name] = reason
    return reason is None


def _readable_by(uid: int, paths: list[str]) -> bool:
    def look() -> None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        for path in paths:
            if stat.S_ISDIR(os.stat(path).st_mode):
                os.listdir(path)
        with open(os.__file__, "rb"):
            pass

    return linux.failure_in_child(look) is None
