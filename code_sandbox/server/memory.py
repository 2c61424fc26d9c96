"""How much memory the machine has left, and how much one session and everything it started uses. Linux, /proc."""

from __future__ import annotations

import asyncio
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
    """A process's children, their children and so on; those that end meanwhile are left out."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = [int(child) for child in (_PROC / f"{parent}/task/{parent}/children").read_text().split()]
        except OSError:
            continue
        found += children
        waiting += children
    return found


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants, what they share counted in parts (PSS, without files)."""
    total = 0
    for each in (pid, *descendants(pid)):
        try:
            text = (_PROC / f"{each}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) << 10
    return total


def _oversized(pids: list[int], limit_bytes: int) -> list[int]:
    """Those sessions (by their init) that use more than the limit.

    One process alone is held by its own limit on address space; only several together can exceed it.
    """
    return [pid for pid in pids if len(descendants(pid)) > 1 and tree_bytes(pid) > limit_bytes]


async def watch_memory(processes: Callable[[bool], list[SessionProcess]], limit_bytes: int) -> None:
    """End sessions whose processes together use more than the limit, until cancelled.

    Args:
        processes: Gives those to look at: all of them (True) or those that are busy.
        limit_bytes: Of a session.
    """
    rounds = 0
    while True:
        await asyncio.sleep(_EVERY_S)
        rounds += 1
        by_pid = {process.pid: process for process in processes(rounds % _EVERYONE_EVERY == 0)}
        for pid in await asyncio.to_thread(_oversized, list(by_pid), limit_bytes):
            _LOG.warning("killing a session that uses more than %d MiB", limit_bytes >> 20)
            by_pid[pid].end_for_its_use()
