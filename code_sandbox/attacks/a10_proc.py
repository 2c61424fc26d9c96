"""10. Looking around: processes, kernel, devices."""

from code_sandbox.attacks.suite import Attempt

_COMMANDS = """
import glob, os
own = os.getpid()
for path in glob.glob("/proc/[0-9]*/cmdline"):
    pid = int(path.split("/")[2])
    if pid in (own, os.getppid()):
        continue
    try:
        command = open(path, "rb").read()
    except OSError:
        continue
    if command:
        breach(pid, command[:60])
"""
_PS = """
import subprocess
listed = subprocess.run("ps -e -o pid= 2>/dev/null || true", shell=True, capture_output=True, text=True).stdout.split()
if len(listed) > 6:
    breach(len(listed), "processes listed")
"""
_KERNEL = """
import os
for path in ("/sys/kernel/debug", "/sys/fs/cgroup", "/sys/class/net", "/sys/kernel/security", "/proc/kallsyms", "/proc/sysrq-trigger", "/proc/kmsg"):
    try:
        found = os.listdir(path) if os.path.isdir(path) else open(path).read(4096)
    except OSError:
        continue
    if path == "/proc/kallsyms" and not any(line.split()[0].strip("0") for line in found.splitlines() if line):
        continue
    if found:
        breach(path)
"""
ATTEMPTS = (
    Attempt("command lines of others", _COMMANDS),
    Attempt("ps", _PS),
    Attempt("/sys and the kernel's files", _KERNEL),
)
