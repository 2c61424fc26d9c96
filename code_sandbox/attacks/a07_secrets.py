"""7. What the server, its user and its other files know."""

from code_sandbox.attacks.suite import Attempt

_ENVIRONMENT = """
import os
for name, value in os.environ.items():
    if any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "KEY", "REDIS", "WANDB", "CREDENTIAL", "JUDGE")):
        breach(name)
"""
_PARENTS = """
import os
own = {os.getpid()}
try:
    own |= {int(number) for number in os.listdir("/proc/self/task")}
except OSError:
    pass
for pid in {os.getppid(), 1, 2, 3, *range(4, 60000)} - own:
    for name in ("environ", "mem", "maps", "cwd", "root", "fd", "auxv"):
        path = f"/proc/{pid}/{name}"
        try:
            what = os.readlink(path) if name in ("cwd", "root") else os.listdir(path) if name == "fd" else open(path, "rb").read(16)
        except OSError:
            continue
        if what:
            breach(path)
"""
_FILES = """
import glob, os
for pattern in (
    "/etc/shadow", "/etc/passwd", "/etc/hosts", "/root/*", "/root/.*", "/home/*/*", "/var/log/*", "/run/*", "/boot/*", "/srv/*",
    "~/.netrc", "~/.ssh/*", "~/.aws/*", "~/.cache/huggingface/*", "~/.config/*", "/proc/1/environ", "/proc/kcore", "/dev/mem", "/dev/sd*", "/dev/vd*",
):
    for path in glob.glob(os.path.expanduser(pattern)) or [pattern]:
        try:
            if open(path, "rb").read(1):
                breach(path)
        except OSError:
            pass
"""
_DESCRIPTORS = """
import os, stat
own = os.stat(".").st_dev
for number in range(3, 4096):
    try:
        there = os.fstat(number)
        head = os.pread(number, 4, 0) if stat.S_ISREG(there.st_mode) else b""
    except OSError:
        continue
    if stat.S_ISDIR(there.st_mode) or (stat.S_ISREG(there.st_mode) and there.st_dev != own and head[:4] not in (b"\\x89PNG", b"\\xff\\xd8\\xff\\xe0")):
        breach("descriptor", number, head)
"""
_HEAP = """
import gc
def look(value, depth=0):
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value.decode("latin1")
        # Put together here, so that this cell does not find itself.
        if any(word in text for word in ("redis" + "://", "Bear" + "er ", "hf" + "_token", "WANDB" + "_API")) and len(text) < 300:
            print("seen", text[:100])
            return text.startswith(("redis" + "://", "Bear" + "er "))
    return False
for thing in gc.get_objects():
    if isinstance(thing, dict):
        for value in list(thing.values()):
            if look(value):
                breach(value[:50])
"""
ATTEMPTS = (
    Attempt("environment", _ENVIRONMENT),
    Attempt("/proc of other processes", _PARENTS, timeout_s=60),
    Attempt("files of the system and its users", _FILES, timeout_s=30),
    Attempt("open descriptors", _DESCRIPTORS),
    Attempt("the heap it was forked from", _HEAP, timeout_s=30),
)
