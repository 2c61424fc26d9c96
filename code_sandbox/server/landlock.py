"""File access by allow-list, without privileges (Landlock). Constants: uapi/linux/landlock.h of kernel 6.12."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from code_sandbox.server import linux

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE, _IOCTL_DEVICE = 1 << 1, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ALL_OF_ABI = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF)
"""Every file system right that an ABI version knows."""
_ALL_TCP = 0b11
_ALL_SCOPES = 0b11
"""Abstract Unix sockets and signals."""
_VERSION = 1
_PATH_BENEATH = 1
SIGNAL_SCOPE_ABI = 6
TRUNCATE_ABI = 3


def abi() -> int:
    """Landlock's version here; 0 where there is none."""
    try:
        return linux.syscall(linux.LANDLOCK_CREATE_RULESET, None, 0, _VERSION, what="landlock_create_ruleset")
    except OSError:
        return 0


def restrict(version: int, *, readable: Sequence[int], writable: Sequence[int], devices: Sequence[int]) -> None:
    """Restrict this process and all it starts, for good. Needs `no_new_privs`.

    Files that are open already stay usable.

    Args:
        version: What `abi()` says.
        readable: File descriptors (O_PATH) below which files may be read and run.
        writable: Below which everything is allowed that ordinary files allow; device nodes cannot be made.
        devices: Of single device files that may be read and written.

    Raises:
        OSError: The kernel refused.
    """
    every_right = _ALL_OF_ABI[min(version, len(_ALL_OF_ABI) - 1)]
    attributes = struct.pack("Q", every_right)
    if version >= 4:
        attributes += struct.pack("Q", _ALL_TCP)
    if version >= SIGNAL_SCOPE_ABI:
        attributes += struct.pack("Q", _ALL_SCOPES)
    ruleset = linux.syscall(linux.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0, what="landlock_create_ruleset")
    make_devices = 1 << 6 | 1 << 11
    for rights, descriptors in (
        (_READ, readable),
        (every_right & ~make_devices & ~_IOCTL_DEVICE, writable),
        ((_READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE) & every_right, devices),
    ):
        for descriptor in descriptors:
            rule = struct.pack("=Qi", rights & _allowed_on(descriptor), descriptor)
            linux.syscall(linux.LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0, what="landlock_add_rule")
    try:
        linux.syscall(linux.LANDLOCK_RESTRICT_SELF, ruleset, 0, what="landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allowed_on(descriptor: int) -> int:
    """The kernel refuses rights of directories on a file."""
    is_directory = (os.fstat(descriptor).st_mode & 0o170000) == 0o040000
    return -1 if is_directory else _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
