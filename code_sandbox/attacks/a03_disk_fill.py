"""3. Disk and shared memory without end."""

from code_sandbox.attacks.suite import Attempt

_FILES = """
import os
written = 0
try:
    for number in range(8):
        with open(os.path.join({directory}, f"fill-{{number}}"), "wb") as file:
            for _ in range(12):
                written += file.write(bytes(16 << 20))
except OSError as refused:
    print("refused after", written, refused)
finally:
    for number in range(8):
        if os.path.exists(os.path.join({directory}, f"fill-{{number}}")):
            os.remove(os.path.join({directory}, f"fill-{{number}}"))
if written > 600 << 20:
    breach(written, "bytes")
"""
_MEMFD = """
import os
files = []
try:
    for number in range(8):
        files.append(os.memfd_create("fill"))
        os.write(files[-1], bytes(128 << 20))
    breach("a gigabyte in anonymous files")
except OSError as refused:
    print(refused)
finally:
    for file in files:
        os.close(file)
"""
_SHM = """
from multiprocessing import shared_memory
blocks = []
try:
    for number in range(8):
        blocks.append(shared_memory.SharedMemory(create=True, size=128 << 20))
        blocks[-1].buf[:] = bytes(128 << 20)
    breach("a gigabyte of shared memory")
except OSError as refused:
    print(refused)
finally:
    for block in blocks:
        block.close()
        block.unlink()
"""
_SPARSE = """
with open("sparse", "wb") as file:
    file.truncate(1 << 40)
breach("a file of a terabyte")
"""
_SYSV = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.shmget(0, 1 << 29, 0o1600) >= 0:
    breach("System V shared memory")
"""
ATTEMPTS = (
    Attempt("files", _FILES.format(directory="'.'"), level=2, timeout_s=30),
    Attempt(
        "files in the temporary directory",
        _FILES.format(directory="__import__('tempfile').gettempdir()"),
        level=2,
        timeout_s=30,
    ),
    Attempt("files in /dev/shm", _FILES.format(directory="'/dev/shm'"), timeout_s=30),
    Attempt("shared memory", _SHM, level=2, timeout_s=30, reported=("ok", "killed", "FileNotFoundError", "PermissionError")),
    Attempt("anonymous files", _MEMFD),
    Attempt("System V shared memory", _SYSV),
    Attempt("a sparse file", _SPARSE, reported=("OSError",)),
)
