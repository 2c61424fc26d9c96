"""18. More rights than one was given."""

from code_sandbox.attacks.suite import Attempt

# With arguments that change nothing even where the call is allowed.
_CALLS = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
first = 0 if platform.machine() == "x86_64" else 1
buffer = ctypes.create_string_buffer(256)
for name, numbers, arguments in (
    ("unshare user", (272, 97), (0x10000000,)), ("unshare mount", (272, 97), (0x20000,)), ("unshare net", (272, 97), (0x40000000,)),
    ("unshare pid", (272, 97), (0x20000000,)), ("mount", (165, 40), (b"none", b".", b"tmpfs", 0, None)), 
    ("chroot", (161, 51), (b".",)), ("pivot_root", (155, 41), (b".", b".")), ("bpf", (321, 280), (0, buffer, 256)),
    ("userfaultfd", (323, 282), (1,)), ("perf_event_open", (298, 241), (buffer, 0, -1, -1, 0)), ("keyctl", (250, 219), (0, -3, 1)),
    ("add_key", (248, 217), (b"user", b"x", b"y", 1, -3)), ("open_by_handle_at", (304, 265), (-100, buffer, 0)), ("io_uring_setup", (425, 425), (4, buffer)),
    ("init_module", (175, 105), (buffer, 8, b"")), ("kexec_load", (246, 104), (0, 0, None, 0)), ("reboot", (169, 142), (0,)),
    ("sethostname", (170, 161), (host := os.uname().nodename.encode(), len(host))), ("settimeofday", (164, 170), (None, None)), ("swapon", (167, 224), (b"x", 0)),
    ("fsopen", (430, 430), (b"tmpfs", 0)), ("open_tree", (428, 428), (-100, b"/", 1)), ("personality", (135, 92), (0x0040000,)),
    ("clone into a user namespace", (56, 220), (0x10000011, None, None, None, None)),
):
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    got = libc.syscall(ctypes.c_long(numbers[first]), *converted)
    if got == 0 and name.startswith("clone"):
        os._exit(0)
    if got >= 0:
        breach(name)
"""
_USER = """
import os
if os.getuid() == 0:
    caps = [line for line in open("/proc/self/status") if line.startswith("CapEff")] if os.path.exists("/proc/self/status") else []
    if caps and int(caps[0].split()[1], 16):
        breach("root with capabilities", caps)
else:
    for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setresuid(0, 0, 0)):
        try:
            attempt()
            breach("became root")
        except OSError:
            pass
"""
_PROGRAMS = """
import os, subprocess
for command in (["su", "-c", "id"], ["sudo", "-n", "id"], ["mount", "-t", "tmpfs", "none", "."], ["unshare", "-Ur", "id"], ["chroot", "/", "id"], ["nsenter", "-t", "1", "-m", "id"]):
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        continue
    if done.returncode == 0 and (os.getuid() != 0 or command[0] not in ("su",)):
        breach(command, done.stdout)
"""
_LIMITS = """
import resource
for limit in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
    soft, hard = resource.getrlimit(limit)
    if hard == resource.RLIM_INFINITY:
        breach("no limit", limit)
    try:
        resource.setrlimit(limit, (hard * 2, hard * 2))
        breach("raised", limit)
    except (OSError, ValueError):
        pass
try:
    import os
    os.nice(-10)
    breach("nice")
except OSError:
    pass
"""
ATTEMPTS = (
    Attempt("system calls", _CALLS, timeout_s=20),
    Attempt("another user", _USER),
    Attempt("set-uid programs", _PROGRAMS, timeout_s=30),
    Attempt("raising limits", _LIMITS),
)
