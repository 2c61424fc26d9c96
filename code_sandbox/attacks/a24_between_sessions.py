"""24. From one session to another, past the files and into what all of them share."""

import asyncio
from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Attempt, Target, report

# A canary that a session can read: the interpreter's library. What is there is set again, so a success changes nothing.
_ABOUT_FILES = """
import ctypes, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
paths = [os.__file__, sys.executable, os.path.dirname(os.__file__), "/usr", "/usr/bin/env", "/etc/passwd", "//tmp", "/var/tmp", "/"]
for path in paths:
    try:
        there = os.stat(path)
    except OSError:
        continue
    mode, times = stat.S_IMODE(there.st_mode), (there.st_atime_ns, there.st_mtime_ns)
    name, at = path.encode(), -100
    attempts = {
        "chmod": lambda: os.chmod(path, mode),
        "fchmodat": lambda: os.chmod(os.path.basename(path) or "/", mode, dir_fd=os.open(os.path.dirname(path), os.O_RDONLY)),
        "fchmod": lambda: os.fchmod(os.open(path, os.O_RDONLY), mode),
        "fchmodat2": lambda: libc.syscall(452, at, name, mode, 0) == 0 or 1 / 0,
        "chown": lambda: os.chown(path, there.st_uid, there.st_gid),
        "lchown": lambda: os.lchown(path, there.st_uid, there.st_gid),
        "fchown": lambda: os.fchown(os.open(path, os.O_RDONLY), there.st_uid, there.st_gid),
        "utimensat": lambda: os.utime(path, ns=times),
        "futimens": lambda: os.utime(os.open(path, os.O_RDONLY), ns=times),
        "utime": lambda: libc.utime(name, None) == 0 or 1 / 0,
        "setxattr": lambda: os.setxattr(path, "user.attack", b"1"),
        "removexattr": lambda: os.removexattr(path, "user.attack"),
        "set flags": lambda: libc.ioctl(os.open(path, os.O_RDONLY), 0x40086602, ctypes.byref(ctypes.c_int(0))) == 0 or 1 / 0,
        "truncate": lambda: stat.S_ISREG(there.st_mode) and os.truncate(path, there.st_size) or 1 / 0,
        "rename": lambda: os.rename(path, path + ".attack"),
        "remove": lambda: os.access(path, os.W_OK) and 1 / 0 or os.rmdir(path),
    }
    # On the session's own files all of this may work.
    own = "/sandbox/tmp"
    if os.path.realpath(path).startswith(("/sandbox", os.path.dirname(os.getcwd()))) or os.path.exists(own) and os.path.samefile(path, own):
        continue
    for what, attempt in attempts.items():
        try:
            attempt()
            breach(what, path)
        except (OSError, ZeroDivisionError):
            pass
"""
_SET_UID = """
import ctypes, os, shutil
libc = ctypes.CDLL(None, use_errno=True)
def planted(name):
    return os.path.exists(name) and os.stat(name).st_mode & 0o6000 and not os.statvfs(name).f_flag & os.ST_NOSUID
shutil.copyfile("/usr/bin/env", "program")
for what, attempt in {
    "chmod": lambda: os.chmod("program", 0o4755),
    "fchmod": lambda: os.fchmod(os.open("program", os.O_RDONLY), 0o6755),
    "fchmodat2": lambda: libc.syscall(452, -100, b"program", 0o4755, 0),
    "open": lambda: os.open("new", os.O_CREAT | os.O_WRONLY, 0o4755),
    "creat": lambda: libc.creat(b"newer", 0o4755),
    "openat2": lambda: libc.syscall(437, -100, b"newest", (ctypes.c_uint64 * 3)(0o101, 0o4755, 0), 24),
    "mknod": lambda: os.mknod("made", 0o104755),
}.items():
    try:
        attempt()
    except OSError:
        pass
    for name in ("program", "new", "newer", "newest", "made"):
        if planted(name):
            breach("a set-uid program by", what)
"""
_WATCHES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
watcher = libc.inotify_init1(0)
if watcher >= 0 and libc.inotify_add_watch(watcher, os.fsencode(os.__file__), 0xFFF) >= 0:
    breach("sees who reads a library that others use")
"""
_LEASES = """
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
for path in (os.__file__, *(f"/proc/self/fd/{number}" for number in range(3, 64))):
    for kind in (fcntl.F_WRLCK, fcntl.F_RDLCK):
        try:
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, kind)
            breach("a lease on", path)
        except OSError:
            pass
"""
_REQUESTS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
taken = 0
for _ in range(128):
    context = ctypes.c_ulong(0)
    if libc.syscall(206, 1000, ctypes.byref(context)) != 0:
        break
    taken += 1000
if taken:
    breach("took", taken, "of the machine's asynchronous requests")
"""
_BUFFERS = """
import os, socket
def fill():
    held = []
    try:
        while True:
            pair = socket.socketpair()
            held.append(pair)
            for end in pair:
                for number, grown in ((7, 1 << 30), (32, 1 << 30)):
                    try:
                        end.setsockopt(socket.SOL_SOCKET, number, grown)
                        breach("asked for a larger buffer")
                    except OSError:
                        pass
                end.setblocking(False)
                try:
                    while True:
                        end.send(bytes(60_000))
                except OSError:
                    pass
    except OSError:
        pass
fill()
"""
_EATERS = """
import os, threading, time
full = os.pipe()
def eat():
    data = bytearray(700 << 20)
    data[::4096] = b"x" * len(data[::4096])
    os.write(full[1], b"x")
    time.sleep(60)
def start_eaters():
    for _ in range(10):
        if os.fork() == 0:
            try:
                eat()
            finally:
                os._exit(0)
"""
_IN_A_THREAD = (
    _EATERS
    + """
# The thread stays, so its children are not the process's own.
threading.Thread(target=lambda: (start_eaters(), time.sleep(90)), daemon=True).start()
# On a busy machine it takes a while until all of it is theirs.
[os.read(full[0], 1) for _ in range(10)]
time.sleep(12)
breach("ten processes of a thread hold 7 GB together")
"""
)
_LEFT_BEHIND = (
    _EATERS
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(2)
        start_eaters()
        time.sleep(90)
    os._exit(0)
"""
)
ATTEMPTS = (
    Attempt("changing what is known about a file", _ABOUT_FILES),
    Attempt("a program that runs as its owner", _SET_UID),
    Attempt("watching who reads what", _WATCHES),
    Attempt("leases on what others read", _LEASES),
    Attempt("asynchronous requests", _REQUESTS),
    Attempt("data in sockets that nobody reads", _BUFFERS, timeout_s=20),
    Attempt("eaters that a thread has started", _IN_A_THREAD, 2, timeout_s=60, unbounded=True, reported=("killed", "timeout")),
)
_LISTEN = """
import os, socket
listener = socket.socket(socket.AF_UNIX)
try:
    listener.bind("\\0attack")
    listener.listen()
except OSError as refused:
    print(refused)
"""
_CONNECT = """
import errno, socket
try:
    if "@attack" in open("/proc/net/unix").read():
        breach("sees the other's sockets")
except OSError:
    pass
for use in ("connect", "bind"):
    with_name = None
    try:
        with_name = socket.socket(socket.AF_UNIX)
        getattr(with_name, use)("\\0attack")
        if use == "connect":
            breach("connected to the other")
    except OSError as refused:
        if use == "bind" and refused.errno == errno.EADDRINUSE:
            breach("the name is taken by the other")
"""
_SPOIL = """
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
try:
    image_1.load()
    paths = [image_1.filename]
except (AttributeError, OSError):
    paths = []
for number in range(3, 64):
    try:
        if os.pread(number, 4, 0) == b"\\x89PNG":
            paths.append(number)
    except OSError:
        pass
for path in paths:
    number = path if isinstance(path, int) else os.open(path, os.O_RDONLY)
    for attempt in (
        lambda: fcntl.flock(number, fcntl.LOCK_EX),
        lambda: fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_WRLCK),
        lambda: os.fchmod(number, 0),
        lambda: os.ftruncate(number, 0),
        lambda: os.pwrite(number, b"spoilt", 0),
        lambda: os.pwrite(os.open(f"/proc/self/fd/{number}", os.O_RDWR), b"spoilt", 0),
    ):
        try:
            attempt()
        except OSError:
            pass
print(len(paths))
"""
_LOOK = """
import fcntl, os
for number in range(3, 64):
    try:
        if os.pread(number, 4, 0) == b"\\x89PNG":
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        breach("the image is locked by another session")
    except OSError:
        pass
image_1.load()
image_1.getpixel((5, 5))
"""


_IDLE_S = 25.0


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """What takes two sessions, or two cells of one."""
    name = __name__.rsplit(".", 1)[1]
    for what, code, then, expected in (
        ("sockets without a file", _LISTEN, _CONNECT, None),
        ("spoiling the image that both look at", _SPOIL, _LOOK, "(10, 200, 30)"),
    ):
        one, other = await target.session(), await target.session()
        await other.execute("image_1.size")
        await one.execute(code)
        wrong = ""
        # The other that was there, and one that opens now.
        for session in (other, await target.session()):
            result = await session.execute("def breach(*what): print('BREACH', *what)\n" + then)
            seen = [line for line in result.stdout.splitlines() if line.startswith("BREACH")]
            if seen:
                wrong = seen[0]
            elif result.status != "ok" or (expected and result.result != expected):
                wrong = wrong or f"another session has {result.result or report(result)!r} instead of {expected}"
            await session.close()
        await one.close()
        yield AttackOutcome(name, what, 2, report(result), wrong or await target.harm())
    if target.level < 2:
        return
    session = await target.session()
    await session.execute(_LEFT_BEHIND)
    # Nothing runs that a server would have to look at.
    await asyncio.sleep(_IDLE_S)
    result = await session.execute("1 + 1")
    wrong = "" if report(result) == "killed" else f"processes that a cell left behind hold 7 GB: {report(result)}"
    await session.close()
    yield AttackOutcome(name, "eaters that a cell has left behind", 2, report(result), wrong or await target.harm())
