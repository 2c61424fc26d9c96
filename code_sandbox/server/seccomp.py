"""A system call filter: what a cell has no use for, and what breaks out of a sandbox, is answered EPERM.

Denied by name rather than allowed by name, because scientific libraries use many calls; so that the list cannot be
outgrown, every call newer than the table is answered ENOSYS, as an older kernel would. Sources: linux/include/uapi and
arch/*/entry/syscalls of kernel 6.17; the choice follows Docker's default profile (moby/profiles, seccomp/default.json).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

from code_sandbox.server import linux

_NEWEST_KNOWN = 469
_FORBIDDEN = {
    # name: (x86_64, aarch64); None where the architecture has no such call
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161),
    "setdomainname": (171, 162), "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "acct": (163, 89), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "syslog": (103, 116), "vhangup": (153, 58), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "lookup_dcookie": (212, 18), "personality": (135, 92), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Memory that belongs to no process and no file system, so that no limit of ours would count it.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442), "quotactl_fd": (443, 443),
    "process_mrelease": (448, 448), "open_tree_attr": (467, 467),
    # Requests and watches that the whole machine, or all sessions of one user, have a limited number of.
    "io_setup": (206, 0), "inotify_init": (253, None), "inotify_init1": (294, 26),
}  # fmt: skip
_SOCKET, _CONNECT, _CLONE, _IOCTL, _PRLIMIT = (41, 198), (42, 203), (56, 220), (16, 29), (302, 261)
_FCNTL, _SETSOCKOPT = (72, 25), (54, 208)
_SIGNALS = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
            "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424)}  # fmt: skip
_OWNERS_AND_TIMES = {
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "file_setattr": (469, 469),
}  # fmt: skip
_ATTRIBUTES = {
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
}  # fmt: skip
_MODES = {
    # name: (x86_64, aarch64, which argument is the mode)
    "chmod": (90, None, 1), "fchmod": (91, 52, 1), "fchmodat": (268, 53, 2), "fchmodat2": (452, 452, 2),
}  # fmt: skip
_MAKES_FILES = {"open": (2, None, 2), "creat": (85, None, 1), "openat": (257, 56, 3), "mknod": (133, None, 1),
                "mknodat": (259, 33, 2)}  # fmt: skip
_OPENAT2, _TRUNCATE = (437, 437), (76, 45)
_SET_ID = 0o6000
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E02_0000
_REQUESTS = (0x5412, 0x541C, 0x4008_6602, 0x401C_5820)
"""To ioctl. TIOCSTI and TIOCLINUX: typing into the terminal of whoever started the server. FS_IOC_SETFLAGS and
FS_IOC_FSSETXATTR: attributes of files that are open for reading only."""
_LEASES = (1024, 1026)
"""F_SETLEASE, which makes others wait who open the file, and F_NOTIFY, to fcntl."""
_SOL_SOCKET, _BUFFER_SIZES = 1, (7, 32)
"""SO_SNDBUF and SO_SNDBUFFORCE: what waits in a socket is memory of no process (memory.py)."""
_X32 = 0x4000_0000
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_ARCHITECTURES = ("x86_64", "aarch64")

# Classic BPF (linux/bpf_common.h) and offsets into struct seccomp_data.
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


@dataclass(frozen=True, slots=True)
class Allowed:
    """What depends on the other layers."""

    unix_sockets: bool
    connecting: bool
    """Unix sockets of the host are out of reach, so connecting is harmless."""
    signalling: bool
    """Other processes are out of reach, so signals are harmless. Otherwise a process may signal itself only."""
    metadata: bool
    """Files that are not the session's are on read-only mounts, so owners, times and attributes may be changed."""
    modes: bool
    """Or they belong to another user, so modes may be."""
    truncating: bool
    """Landlock, or a mount, says which files may be cut short by their names."""


NOTHING = Allowed(
    unix_sockets=False, connecting=False, signalling=False, metadata=False, modes=False, truncating=False
)


def _argument(index: int, *, high: bool = False) -> int:
    return 16 + 8 * index + (4 if high else 0)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _refuse(number: int = errno.EPERM) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def build(machine: str, allowed: Allowed, own_pid: int) -> bytes:
    """The filter as an array of `struct sock_filter`.

    Raises:
        OSError: ENOSYS for an architecture without a table.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}; there are {', '.join(_ARCHITECTURES)}")
    column = _ARCHITECTURES.index(machine)
    load_number = _step(_LOAD, _NUMBER)
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        load_number,
    ]
    if machine == "x86_64":
        program += [_step(_ANY_BIT, _X32, 0, 1), _refuse()]
    program += [
        _step(_GREATER, _NEWEST_KNOWN, 0, 1),
        _refuse(errno.ENOSYS),
        _step(_EQUAL, _CLONE3, 0, 1),
        _refuse(errno.ENOSYS),
    ]
    for numbers in _FORBIDDEN.values():
        if (number := numbers[column]) is not None:
            program += [_step(_EQUAL, number, 0, 1), _refuse()]
    program += _checked_arguments(column)
    program += _dependent(column, allowed, own_pid)
    return b"".join((*program, _step(_RETURN, _ALLOW)))


def _when(number: int, *checks: bytes) -> list[bytes]:
    """Steps for one call; behind them its number is loaded again."""
    return [_step(_EQUAL, number, 0, len(checks) + 1), *checks, _step(_LOAD, _NUMBER)]


def _checked_arguments(column: int) -> list[bytes]:
    """Calls of which some uses are refused wherever a session runs."""
    program = _when(_CLONE[column], _step(_LOAD, _argument(0)), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _refuse())
    for request in _REQUESTS:
        program += _when(_IOCTL[column], _step(_LOAD, _argument(1)), _step(_EQUAL, request, 0, 1), _refuse())
    for command in _LEASES:
        program += _when(_FCNTL[column], _step(_LOAD, _argument(1)), _step(_EQUAL, command, 0, 1), _refuse())
    for option in _BUFFER_SIZES:
        on_sockets = (_step(_LOAD, _argument(1)), _step(_EQUAL, _SOL_SOCKET, 0, 3))
        program += _when(
            _SETSOCKOPT[column], *on_sockets, _step(_LOAD, _argument(2)), _step(_EQUAL, option, 0, 1), _refuse()
        )
    # A program that runs as its owner, whoever starts it. What names its mode behind a pointer is an old kernel's.
    program += [_step(_EQUAL, _OPENAT2[column], 0, 1), _refuse(errno.ENOSYS)]
    for *numbers, index in (_MODES | _MAKES_FILES).values():
        if (number := numbers[column]) is not None:
            program += _when(number, _step(_LOAD, _argument(index)), _step(_ANY_BIT, _SET_ID, 0, 1), _refuse())
    # Limits of another process.
    program += _when(_PRLIMIT[column], _step(_LOAD, _argument(0)), _step(_EQUAL, 0, 1, 0), _refuse())
    # What lists network interfaces (getifaddrs, and ZeroMQ with it) takes this answer for an old kernel's, and goes on.
    no_netlink = (_step(_EQUAL, socket.AF_NETLINK, 0, 1), _refuse(errno.EOPNOTSUPP))
    return program + _when(_SOCKET[column], _step(_LOAD, _argument(0)), *no_netlink)


def _dependent(column: int, allowed: Allowed, own_pid: int) -> list[bytes]:
    """Calls that depend on the other layers."""
    unix_only = (_step(_LOAD, _argument(0)), _step(_EQUAL, socket.AF_UNIX, 1, 0)) if allowed.unix_sockets else ()
    program = _when(_SOCKET[column], *unix_only, _refuse())
    if not allowed.connecting:
        program += _when(_CONNECT[column], _refuse())
    if not allowed.signalling:
        for numbers in _SIGNALS.values():
            program += _when(numbers[column], _step(_LOAD, _argument(0)), _step(_EQUAL, own_pid, 1, 0), _refuse())
    return program + _changes(column, allowed)


def _changes(column: int, allowed: Allowed) -> list[bytes]:
    """What Landlock does not look after: everything about a file but its contents and its name."""
    refused: list[tuple[int | None, int]] = []
    if not allowed.metadata:
        refused += [(numbers[column], errno.EPERM) for numbers in _OWNERS_AND_TIMES.values()]
        # What copies files (shutil) takes this answer for a file system without attributes, and goes on.
        refused += [(numbers[column], errno.EOPNOTSUPP) for numbers in _ATTRIBUTES.values()]
    if not allowed.modes:
        refused += [((x86_64, aarch64)[column], errno.EPERM) for x86_64, aarch64, _ in _MODES.values()]
    if not allowed.truncating:
        refused.append((_TRUNCATE[column], errno.EPERM))
    known = [(number, answer) for number, answer in refused if number is not None]
    return [step for number, answer in known for step in (_step(_EQUAL, number, 0, 1), _refuse(answer))]


def install(allowed: Allowed) -> None:
    """Filter this process and all it starts, for good. Needs `no_new_privs`.

    Raises:
        OSError: The kernel has no seccomp, or there is no table for this architecture.
    """
    program = build(linux.MACHINE, allowed, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if linux.libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
