"""How much memory the machine has left, and how much one session and everything it started uses. Linux, /proc."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from code_sandbox.server.session_process import SessionProcess

_LOG = logging.getLogger(__name__)

_PROC = Path("/proc")
_EVERY_S = 1.0
_EVERYONE_EVERY = 10


def available_bytes() -> int:
    """What could still be allocated without swapping, within this process's cgroup (version 2) where there is one."""
    fields = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) << 10
    try:
        group = next(line for line in (_PROC / "self/cgroup").read_text().splitlines() if line.startswith("0::"))
        directory = Path("/sys/fs/cgroup") / group.removeprefix("0::/")
        limit = (directory / "memory.max").read_text().strip()
        if limit != "max":
            available = min(available, int(limit) - int((directory / "memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass
    return available


def descendants(pid: int) -> list[int]:
    """A process's children, whichever of its threads made them, their children and so on.

    Those that end meanwhile are left out.
    """
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in (_PROC / f"{parent}/task").iterdir():
                with contextlib.suppress(OSError):
                    children = [int(child) for child in (thread / "children").read_text().split()]
                    found += children
                    waiting += children
    return found


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants, what they share counted in parts (PSS, without files).

    What waits in their sockets is memory of none of them: each socket counts with as much as it may hold.
    """
    total, sockets = 0, set[str]()
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            for line in (_PROC / f"{each}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) << 10
            sockets |= _sockets(each)
    return total + len(sockets) * _socket_bytes()


def _sockets(pid: int) -> set[str]:
    """Names of those that a process has open."""
    found = set()
    for descriptor in (_PROC / f"{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if (target := str(descriptor.readlink())).startswith("socket:"):
                found.add(target)
    return found


def _socket_bytes() -> int:
    """What one can hold that nobody reads; a session cannot ask for more (seccomp.py)."""
    return int((_PROC / "sys/net/core/wmem_default").read_text())


def _look(pids: list[int], limit_bytes: int) -> tuple[list[int], set[int]]:
    """Those sessions (by their init) that use more than the limit, and those of more than one process.

    One process alone is held by its own limit on address space; only several together can exceed it.
    """
    several = {pid for pid in pids if len(descendants(pid)) > 1}
    return [pid for pid in several if tree_bytes(pid) > limit_bytes], several


async def watch_memory(processes: Callable[[bool], list[SessionProcess]], limit_bytes: int) -> None:
    """End sessions whose processes together use more than the limit, until cancelled.

    Looked at every second are those that have just run a cell, and those in which it has left other processes behind; all
    of them now and then.

    Args:
        processes: Gives all of them (True) or those that run a cell or have just done so.
        limit_bytes: Of a session.
    """
    rounds, several = 0, set[int]()
    while True:
        await asyncio.sleep(_EVERY_S)
        rounds += 1
        everyone = {process.pid: process for process in processes(True)}
        looked = set(everyone) if rounds % _EVERYONE_EVERY == 0 else several & set(everyone)
        looked |= {process.pid for process in processes(False)}
        oversized, several = await asyncio.to_thread(_look, list(looked), limit_bytes)
        for pid in oversized:
            _LOG.warning("killing a session that uses more than %d MiB", limit_bytes >> 20)
            everyone[pid].end_for_its_use()
