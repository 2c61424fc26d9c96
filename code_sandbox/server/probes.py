"""What a session can really do here: attempts from inside, once at start. They alone decide the level.

1 confined   no network, no foreign files, no signals to and no look into other processes, no new privileges; limits on
             memory, processes and file size hold
2 isolated   other processes cannot even be seen, all files together are capped, nothing outlives its session
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from code_sandbox.errors import KernelStartFailed
from code_sandbox.server import cgroups
from code_sandbox.server.cells import Cell
from code_sandbox.server.kernel_pool import KernelPool
from code_sandbox.server.settings import ServerSettings
from code_sandbox.wire import Isolation

LEVELS = ("open", "confined", "isolated", "metered")
_CONFINED = ("network", "files", "signals", "introspection", "privileges", "memory", "file size")
_ISOLATED = ("processes", "seeing processes", "disk", "outliving")
_METERED = ("memory together",)
_TIMEOUT_S = 60.0
# The first processes of a process namespace have these numbers, which then say nothing about the host's.
_NAMESPACE_PIDS = 3

# Runs inside a session. `given` comes first; the last line printed is a JSON object, attempt -> whether it succeeded.
_PROGRAM = r"""
import ctypes, json, mmap, os, resource, socket, subprocess, threading
given = json.loads({given!r})
libc = ctypes.CDLL(None, use_errno=True)
def succeeds(attempt):
    try:
        return bool(attempt())
    except (OSError, ValueError, RuntimeError, MemoryError, OverflowError):
        return False
def network():
    with socket.create_connection(("127.0.0.1", given["port"]), 1):
        return True
def files():
    return open(given["canary"]).read()
def signals():
    return any(succeeds(lambda pid=pid: os.kill(pid, 0) is None) for pid in given["pids"])
def introspection():
    word, remote = ctypes.create_string_buffer(8), (ctypes.c_void_p * 2)(id(None), 8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(word), 8)
    for pid in given["pids"]:
        if libc.process_vm_readv(pid, local, 1, remote, 1, 0) > 0 or libc.ptrace(16, pid, 0, 0) == 0:
            return True
        if succeeds(lambda pid=pid: open(f"/proc/{{pid}}/environ").read()):
            return True
def privileges():
    if libc.unshare(0x10000000) == 0 or libc.mount(b"none", b".", b"tmpfs", 0, None) == 0:
        return True
    return os.getuid() != 0 and succeeds(lambda: os.setuid(0) is None)
def memory():
    return mmap.mmap(-1, given["memory_bytes"] + (1 << 30))
def processes():
    stop, started = threading.Event(), []
    try:
        for _ in range(given["processes"] + 8):
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
        return True
    finally:
        stop.set()
        for thread in started:
            thread.join()
def file_size():
    with open("probe", "wb") as file:
        file.truncate(given["file_bytes"] + 1)
        return True
def seeing_processes():
    return any(os.path.exists(f"/proc/{{pid}}/stat") for pid in given["pids"])
def disk():
    there = os.statvfs(".")
    return there.f_blocks * there.f_frsize > given["tmp_bytes"] * 1.01
def outliving():
    sleep = f'os.execv("/bin/sh", ["{{given["mark"]}}", "-c", "sleep 60; true"])'
    script = "import os; os.setsid(); os.fork() and os._exit(0); " + sleep
    subprocess.run([given["python"], "-I", "-S", "-c", script], timeout=20)
    return False
attempts = (
    network, files, signals, introspection, privileges, memory, processes, file_size, seeing_processes, disk, outliving
)
outcome = {{attempt.__name__.replace("_", " "): succeeds(attempt) for attempt in attempts}}
print(json.dumps(outcome))
"""


async def measure(pool: KernelPool, settings: ServerSettings, root: Path) -> Isolation:
    """Attempt everything from one session while another one stands beside it.

    Raises:
        KernelStartFailed: The attempts could not be made.
    """
    canary = root / "canary"
    canary.write_text("readable by everybody who comes here")
    canary.chmod(0o644)
    mark = f"probe-{secrets.token_hex(8)}"
    kernel, sibling = await pool.start_one(), await pool.start_one()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pids = (os.getpid(), pool.zygote.pid, sibling.process.pid)
            given = {
                "port": listener.getsockname()[1],
                "canary": str(canary),
                "pids": [pid for pid in pids if pid > _NAMESPACE_PIDS],
                "memory_bytes": settings.memory_limit_bytes,
                "processes": settings.process_limit,
                "file_bytes": settings.file_limit_bytes,
                "tmp_bytes": settings.tmp_limit_bytes,
                "mark": mark,
                "python": os.path.realpath(sys.executable),
            }
            await kernel.open([], seed=0, timeout_s=settings.start_timeout_s)
            code = _PROGRAM.format(given=json.dumps(given))
            output = await kernel.execute(Cell(code, timeout_s=_TIMEOUT_S, max_chars=4000))
            process = kernel.process
            metered = cgroups.limited(
                settings.cgroups, process.cgroup, memory_bytes=settings.memory_limit_bytes, pid=process.pid
            )
    finally:
        await asyncio.gather(kernel.kill(), sibling.kill())
        canary.unlink()
    try:
        outcome: dict[str, Any] = json.loads("".join(output.stdout).strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        reason = output.error[2] if output.error else "".join(output.stderr)
        raise KernelStartFailed(f"isolation could not be measured: {output.status}, {reason}") from error
    outcome["outliving"] = await asyncio.to_thread(_is_running, mark)
    outcome["memory together"] = not metered
    steps = (_CONFINED, _ISOLATED, _METERED)
    attempts = [name for step in steps for name in step]
    refused = [name for name in attempts if outcome[name] is False]
    level = 0
    while level < len(steps) and all(name in refused for name in steps[level]):
        level += 1
    return Isolation(
        level=level,
        name=LEVELS[level],
        refused=refused,
        allowed=[name for name in attempts if name not in refused],
        layers=list(pool.zygote.layers.names),
        missing=pool.zygote.layers.missing,
    )


def _is_running(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                return True
    return False


def refusal(isolation: Isolation, required: int) -> str | None:
    """Why a server must not start here; None if it may."""
    if isolation.level >= required:
        return None
    reasons = "; ".join(f"{layer}: {reason}" for layer, reason in isolation.missing.items()) or "every layer is there"
    return (
        f"isolation level {isolation.level} ({isolation.name}) was measured, {required} ({LEVELS[required]}) is required. "
        f"Cells succeeded at: {', '.join(isolation.allowed)}. Missing: {reasons}. Run as root or where unprivileged user "
        f"namespaces are allowed, or accept it with --require-level {isolation.level}"
    )
