"""A control group for every session, below directories that the operator has set aside: the kernel's version 1 or 2.

What a session's processes use together is then limited by the kernel, and not only watched (memory.py). Version 1 has a
directory for each controller, version 2 one for all. Source of the file names: linux/Documentation/admin-guide/cgroup-v1
and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

_MEMORY = ("memory.max", "memory.limit_in_bytes")
_PROCESSES = "pids.max"
_NO_SWAP = "memory.swap.max"
_REMOVED_WITHIN_S = 1.0


def prepare(roots: Sequence[str]) -> None:
    """Make directories usable for `join`.

    Raises:
        OSError: One is no control group, or not ours to write to; says which and what to do.
    """
    for root in map(Path, roots):
        try:
            if (control := root / "cgroup.subtree_control").exists():
                control.write_text("+memory +pids")
            _remove_leftovers(root)
            trial = root / f"trial-{os.getpid()}"
            trial.mkdir()
            known = any((trial / name).exists() for name in (*_MEMORY, _PROCESSES))
            trial.rmdir()
        except OSError as error:
            raise OSError(
                f"cgroup {root}: {error.strerror or error}; expected a directory of its own that this user may write to, "
                "with the controllers memory and pids"
            ) from error
        if not known:
            raise OSError(f"cgroup {root} has neither the controller memory nor pids")


def _remove_leftovers(root: Path) -> None:
    """Groups of servers that were killed: a session's name begins with its server's process id."""
    for group in root.glob("s*-*"):
        server = group.name[1:].partition("-")[0]
        if server.isdecimal() and not Path("/proc", server).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def join(root: int, name: str, *, memory_bytes: int, processes: int) -> None:
    """Put this process, and all it will start, into a new group.

    Args:
        root: Descriptor (O_PATH) of a prepared directory; its path may be out of sight by now.
        name: Of the new group.
        memory_bytes: All its processes and its files in memory together.
        processes: And threads.

    Raises:
        OSError: The kernel refused.
    """
    os.mkdir(name, dir_fd=root)
    limits = [(file, memory_bytes) for file in _MEMORY] + [(_PROCESSES, processes), (_NO_SWAP, 0)]
    for file, value in limits:
        with contextlib.suppress(FileNotFoundError):
            _write(root, f"{name}/{file}", str(value))
    _write(root, f"{name}/cgroup.procs", "0")


def _write(root: int, path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY, dir_fd=root)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def limited(roots: Sequence[str], name: str, *, memory_bytes: int, pid: int) -> bool:
    """Whether a process is in a group of this name whose memory is limited."""
    for root in map(Path, roots):
        for file in _MEMORY:
            with contextlib.suppress(OSError, ValueError):
                if int((root / name / file).read_text()) <= memory_bytes:
                    return str(pid) in (root / name / "cgroup.procs").read_text().split()
    return False


def remove(roots: Sequence[str], name: str) -> None:
    """Remove the groups of a session that has ended; what cannot be removed now stays behind empty."""
    deadline_s = time.monotonic() + _REMOVED_WITHIN_S
    for root in map(Path, roots):
        while (root / name).exists() and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                (root / name).rmdir()
                break
            time.sleep(0.01)
