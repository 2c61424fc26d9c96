"""What a session can really do here: attempts from inside, once at start. They alone decide the level.

1 confined   no network, no foreign files and nothing about them changed, no signals to and no look into other processes, no
             new privileges and no programs that have them; limits on memory and file size hold
2 isolated   other processes cannot even be seen, nothing gets from session to session by sockets or images, processes and
             all files together are capped, nothing outlives its session
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from code_sandbox.errors import KernelStartFailed
from code_sandbox.server import cgroups
from code_sandbox.server.blobs import BlobStore
from code_sandbox.server.cells import Cell
from code_sandbox.server.kernel_pool import AnyKernel, KernelPool
from code_sandbox.server.settings import ServerSettings
from code_sandbox.wire import Isolation

LEVELS = ("open", "confined", "isolated", "metered")
_CONFINED = (
    "network", "files", "metadata", "signals", "introspection", "privileges", "set uid programs", "memory", "file size",
)  # fmt: skip
_ISOLATED = ("processes", "seeing processes", "sockets between sessions", "images of others", "disk", "outliving")
_METERED = ("memory together",)
_TIMEOUT_S = 60.0
# The first processes of a process namespace have these numbers, which then say nothing about the host's.
_NAMESPACE_PIDS = 3

# Runs inside the session beside: what the other one must not notice.
_SIBLING_PROGRAM = r"""
import fcntl, os, socket
try:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + {mark!r})
    listener.listen()
except OSError as refused:
    print(refused)
for number in range(3, 64):
    try:
        if os.pread(number, 4, 0) == b"\x89PNG":
            fcntl.flock(number, fcntl.LOCK_EX)
    except OSError:
        pass
"""
# Runs inside a session. `given` comes first; the last line printed is a JSON object, attempt -> whether it succeeded.
_PROGRAM = r"""
import ctypes, errno, fcntl, json, mmap, os, resource, socket, subprocess, threading
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
def metadata():
    # What is there already is set again, so that a host on which it succeeds is not changed.
    for path in (given["canary"], os.__file__):
        if not succeeds(lambda: [os.stat(path)]):
            continue
        there = os.stat(path)
        for change in (
            lambda: os.chmod(path, there.st_mode & 0o777),
            lambda: os.chown(path, there.st_uid, there.st_gid),
            lambda: os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns)),
            lambda: os.truncate(path, there.st_size),
            lambda: os.setxattr(path, "user.probe", b"1") or os.removexattr(path, "user.probe"),
        ):
            if succeeds(lambda: change() is None):
                return True
def set_uid_programs():
    with open("program", "wb"):
        os.chmod("program", 0o4755)
    return os.stat("program").st_mode & 0o4000 and not os.statvfs(".").f_flag & os.ST_NOSUID
def sockets_between_sessions():
    name = given["mark"]
    if succeeds(lambda: name in open("/proc/net/unix").read()):
        return True
    with socket.socket(socket.AF_UNIX) as connecting:
        if succeeds(lambda: connecting.connect("\0" + name) is None):
            return True
    with socket.socket(socket.AF_UNIX) as squatting:
        try:
            squatting.bind("\0" + name)
        except OSError as refused:
            return refused.errno == errno.EADDRINUSE
def images_of_others():
    for number in range(3, 64):
        try:
            if os.pread(number, 4, 0) == b"\x89PNG":
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
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
    network, files, metadata, signals, introspection, privileges, set_uid_programs, memory, processes, file_size,
    seeing_processes, sockets_between_sessions, images_of_others, disk, outliving,
)
outcome = {{attempt.__name__.replace("_", " "): succeeds(attempt) for attempt in attempts}}
print(json.dumps(outcome))
"""


async def measure(pool: KernelPool, settings: ServerSettings, root: Path) -> Isolation:
    """Attempt everything from one session while another one, which looks at the same image, stands beside it.

    Raises:
        KernelStartFailed: The attempts could not be made.
    """
    canary = root / "canary"
    canary.write_text("readable by everybody who comes here")
    canary.chmod(0o666)
    mark = f"probe-{secrets.token_hex(8)}"
    blobs = BlobStore(root / "probes", limit_bytes=1 << 20)
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
            for each in (sibling, kernel):
                await _open_with_image(each, blobs, timeout_s=settings.start_timeout_s)
            await sibling.execute(Cell(_SIBLING_PROGRAM.format(mark=mark), timeout_s=_TIMEOUT_S, max_chars=4000))
            code = _PROGRAM.format(given=json.dumps(given))
            output = await kernel.execute(Cell(code, timeout_s=_TIMEOUT_S, max_chars=4000))
            process = kernel.process
            metered = cgroups.limited(
                settings.cgroups, process.cgroup, memory_bytes=settings.memory_limit_bytes, pid=process.pid
            )
    finally:
        await asyncio.gather(kernel.kill(), sibling.kill())
        canary.unlink()
        shutil.rmtree(root / "probes", ignore_errors=True)
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


async def _open_with_image(kernel: AnyKernel, blobs: BlobStore, *, timeout_s: float) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    name = hashlib.sha256(data.getvalue()).hexdigest()
    blobs.put(name, data.getvalue())
    descriptor = blobs.copy(name)
    try:
        await kernel.open([descriptor], seed=0, timeout_s=timeout_s)
    finally:
        os.close(descriptor)


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
