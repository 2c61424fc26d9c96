"""9. Signals to, and hands on, other processes."""

from code_sandbox.attacks.suite import Attempt

# A session's first process (its parent) is its own affair.
_KILL = """
import os
own = {0, os.getpid(), os.getppid()}
try:
    # The number of a thread of ours is an address of ours.
    own |= {int(number) for number in os.listdir("/proc/self/task")}
except OSError:
    pass
for pid in range(1, 70000):
    if pid in own:
        continue
    try:
        os.kill(pid, 0)
    except OSError:
        continue
    breach(pid)
    break
"""
_GROUPS = """
import os
# Not -1: with signal 0 the kernel answers that with success even where every process refused.
for target in (-pid for pid in range(2, 70000) if pid != os.getpgid(0)):
    try:
        os.kill(target, 0)
    except OSError:
        continue
    breach(target)
    break
"""
_PTRACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(0x59616d61, -1, 0, 0, 0)
for pid in [os.getppid(), *range(1, 5000)]:
    for request in (16, 0x4206):
        if pid != os.getpid() and libc.ptrace(request, pid, 0, 0) == 0:
            breach("ptrace", pid)
"""
_MEMORY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
word = ctypes.create_string_buffer(8)
local = (ctypes.c_void_p * 2)(ctypes.addressof(word), 8)
# The same address is mapped in every process of the same zygote.
remote = (ctypes.c_void_p * 2)(id(None), 8)
for pid in [os.getppid(), *range(1, 30000)]:
    if pid != os.getpid() and libc.process_vm_readv(pid, local, 1, remote, 1, 0) > 0:
        breach("read memory of", pid)
"""
_DESCRIPTORS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in [os.getppid(), *range(1, 2000)]:
    if pid == os.getpid():
        continue
    handle = libc.syscall(434, pid, 0)
    if handle >= 0:
        for number in range(10):
            if libc.syscall(438, handle, number, 0) >= 0:
                breach("took descriptor", number, "of", pid)
        os.close(handle)
"""
ATTEMPTS = (
    Attempt("kill", _KILL),
    Attempt("kill of groups", _GROUPS),
    Attempt("ptrace", _PTRACE),
    Attempt("process_vm_readv", _MEMORY),
    Attempt("pidfd_getfd", _DESCRIPTORS),
)
