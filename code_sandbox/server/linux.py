"""The Linux system calls that Python 3.11 has no function for, each raising OSError with its errno.

Numbers and constants: linux/include/uapi of kernel 6.12. Calls above 423 have the same number on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable

CLONE_NEWNS = 0x0002_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36

MACHINE = platform.machine()
_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "capset": 126},
    "aarch64": {"clone": 220, "pivot_root": 41, "capset": 91},
}
_MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100
_MNT_DETACH = 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_LAST_CAPABILITY = 40

_libc: ctypes.PyDLL | None = None


def libc() -> ctypes.PyDLL:
    """The C library. It keeps Python's lock during calls: a thread between clone() and its child would be lost."""
    global _libc
    if _libc is None:
        _libc = ctypes.PyDLL(None, use_errno=True)
    return _libc


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None, what: str) -> int:
    """Call the kernel directly.

    Raises:
        OSError: With the call's errno.
    """
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(libc().syscall(ctypes.c_long(number), *converted), what)


def prctl(option: int, value: int = 0) -> None:
    """Raises:
    OSError: The option is unknown here.
    """
    _check(libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def unshare(flags: int) -> None:
    """Move this process into namespaces of its own.

    Raises:
        OSError: Forbidden here.
    """
    _check(libc().unshare(flags), "unshare")


def fork_into(flags: int) -> int:
    """`os.fork()` into new namespaces; in a new process namespace the child is its first process.

    Raises:
        OSError: Forbidden here, or no process left.
    """
    if flags == 0:
        return os.fork()
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid: int = libc().syscall(
        ctypes.c_long(_NUMBERS[MACHINE]["clone"]), ctypes.c_long(flags | signal.SIGCHLD), None, None, None, None
    )
    number = ctypes.get_errno()
    if pid == 0:
        api.PyOS_AfterFork_Child()
    else:
        api.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return pid


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """Raises:
    OSError: The target's name is in the message.
    """
    result = libc().mount(
        source.encode(),
        target.encode(),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        None if data is None else data.encode(),
    )
    _check(result, f"mount {kind or source} on {target}")


def make_read_only(target: str, *, below: bool = True) -> None:
    """Make a mount, and those below it, read-only and without set-uid programs; other flags stay as they are."""
    _set_mount_flags(target, MS_RDONLY | MS_NOSUID, below=below)


def make_plain(target: str) -> None:
    """Let neither set-uid programs nor device nodes of a mount have an effect."""
    _set_mount_flags(target, MS_NOSUID | MS_NODEV, below=True)


def _set_mount_flags(target: str, flags: int, *, below: bool) -> None:
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    recursive = _AT_RECURSIVE if below else 0
    syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), recursive, attributes, len(attributes), what="mount_setattr")


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount point, the root of this mount namespace, and let go of the old one."""
    os.chdir(new_root)
    # With the same path twice the old root is stacked on the new one, and no directory is needed to hold it.
    syscall(_NUMBERS[MACHINE]["pivot_root"], b".", b".", what="pivot_root")
    _check(libc().umount2(b".", _MNT_DETACH), "umount2 of the old root")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for this process and what it will start."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    syscall(_NUMBERS[MACHINE]["capset"], header, bytes(24), what="capset")


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def failure_in_child(attempt: Callable[[], object], *, flags: int = 0) -> str | None:
    """Try what cannot be undone in a process that is thrown away; says why it failed."""
    reader, writer = os.pipe()
    pid = fork_into(flags)
    if pid == 0:
        os.close(reader)
        failed = 1
        try:
            attempt()
            failed = 0
        except (OSError, ValueError) as error:
            os.write(writer, str(error).encode()[:1000] or b"refused")
        finally:
            os._exit(failed)
    os.close(writer)
    with open(reader, "rb") as pipe:
        reason = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    return (reason or f"the attempt ended with status {status}") if status else None
