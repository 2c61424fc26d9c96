"""The root file system that sessions see, and what each of them has of it for itself. Runs in the zygote and in sessions.

The zygote moves into the view once, after it has imported everything; a session adds its own mounts to a copy of it.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

from code_sandbox.server import linux

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/alternatives",
    "/etc/mime.types",
)  # fmt: skip
_SRV = "/srv"
"""Inside the view: the server's directory of session directories."""
OWN = "/sandbox"
"""Inside the view: what a session may write to, `/tmp` with it."""
TMP = "/tmp"
HOME, _OWN_TMP, _SHARED_MEMORY, INNER_DIRECTORY = f"{OWN}/work", f"{OWN}/tmp", f"{OWN}/shm", f"{OWN}/session"
_INNER_UID = 1000
_FILES_PER_TMP_MIB = 64


def readable_paths() -> list[str]:
    """The interpreter, its packages and the system's libraries, without this project's own files."""
    candidates = [*_SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    candidates += [path for path in (site.getusersitepackages(),) if path in sys.path]
    candidates += [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    chosen: list[str] = []
    for path in dict.fromkeys(part for name in candidates for part in (os.path.abspath(name), os.path.realpath(name))):
        if os.path.exists(path) and path != "/" and not any(path.startswith(f"{parent}/") for parent in chosen):
            chosen.append(path)
    return chosen


def enter(server_root: str, readable: Sequence[str], *, user_namespace: bool) -> tuple[int, int]:
    """Move this process into the root file system that sessions see, and away from the network.

    Args:
        server_root: The server's own directory; its `sessions` can be mounted by sessions later.
        readable: Paths of the host that are there, read-only.
        user_namespace: In one of its own, where this needs no privileges.

    Returns:
        This process's user and group as its sessions' parent: in a new user namespace nobody can ask for them.

    Raises:
        OSError: Forbidden here.
    """
    view = os.path.join(server_root, "view")
    os.makedirs(view, exist_ok=True)
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC
    if user_namespace:
        ids = os.geteuid(), os.getegid()
        linux.unshare(flags | linux.CLONE_NEWUSER)
        _map_user(*ids)
    else:
        linux.unshare(flags)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("view", view, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=1m")
    for path in readable:
        _bind(path, view + path)
    for path in DEVICES:
        if os.path.exists(path):
            _bind(path, view + path, read_only=False)
    for name in ("/proc", OWN, _SRV):
        os.makedirs(view + name, exist_ok=True)
    os.symlink(_SHARED_MEMORY, view + "/dev/shm")
    if not os.path.exists(view + TMP):
        os.symlink(_OWN_TMP, view + TMP)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{view}/dev/{name}")
    linux.mount("/proc", view + "/proc", None, linux.MS_BIND | linux.MS_REC)
    linux.mount(os.path.join(server_root, "sessions"), view + _SRV, None, linux.MS_BIND)
    linux.pivot_root(view)
    # Sessions without a user of their own would own it, and all of them share it.
    linux.make_read_only("/", below=False)
    return os.geteuid(), os.getegid()


def add_own_mounts(*, directory: str, uid: int, tmp_bytes: int, parent: tuple[int, int] | None) -> None:
    """Give a session, in its first process, a view of its own processes, and files of its own.

    Args:
        directory: Of the host's, that the server shares with this session; or empty.
        uid: Who the session will run as; 0 for whoever we are.
        tmp_bytes: All files together.
        parent: What `enter` returned, if the session has a user namespace of its own.

    Raises:
        OSError: Forbidden here.
    """
    if parent is not None:
        _map_user(*parent)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    safe = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", "/proc", "proc", safe)
    inodes = (tmp_bytes >> 20) * _FILES_PER_TMP_MIB
    options = f"mode=0700,size={tmp_bytes},nr_inodes={inodes}"
    linux.mount("sandbox", OWN, "tmpfs", safe & ~linux.MS_NOEXEC, options)
    for name in (HOME, _OWN_TMP, _SHARED_MEMORY):
        os.mkdir(name)
    if directory:
        os.mkdir(INNER_DIRECTORY)
        linux.mount(_SRV + "/" + os.path.basename(directory), INNER_DIRECTORY, None, linux.MS_BIND)
        linux.make_plain(INNER_DIRECTORY)
    linux.mount("none", _SRV, "tmpfs", safe, "mode=0,size=4k")
    if uid:
        for name in (OWN, HOME, _OWN_TMP, _SHARED_MEMORY):
            os.chown(name, uid, uid)
    if not os.path.islink(TMP):
        _cover_tmp()


def _cover_tmp() -> None:
    """The interpreter lies below `/tmp`: what the view has there appears in the session's own."""
    for name in os.listdir(TMP):
        _bind(f"{TMP}/{name}", f"{_OWN_TMP}/{name}", read_only=False)
    linux.mount(_OWN_TMP, TMP, None, linux.MS_BIND | linux.MS_REC)


def session_flags(user_namespace: bool) -> int:
    """Namespaces of one session, for `linux.fork_into`."""
    # A network for each, though none has an interface: abstract sockets, and the list of all sockets, belong to one.
    flags = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET
    # A user namespace for each: limits on processes are counted by user and namespace.
    return flags | linux.CLONE_NEWUSER if user_namespace else flags


def _map_user(uid: int, gid: int) -> None:
    """Be ourselves in a new user namespace; root becomes an ordinary user."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid or _INNER_UID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid or _INNER_UID} {gid} 1")


def _bind(source: str, target: str, *, read_only: bool = True) -> None:
    if os.path.islink(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)
    if read_only:
        linux.make_read_only(target)
