"""12. Output without end."""

from code_sandbox.attacks.suite import Attempt
from code_sandbox.wire import ExecuteResult

_LIMIT = 200_000


def _bounded(result: ExecuteResult) -> str | None:
    size = len(result.stdout) + len(result.stderr) + len(result.result) + len(result.error.traceback if result.error else "")
    return f"{size:,} characters came back" if size > _LIMIT else None


_RAW = """
import os
written = 0
try:
    for _ in range(64):
        written += os.write(1, b"\\xff\\x00" * (8 << 20))
except OSError as refused:
    pass
"""
_PRINTF = """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(100_000):
    libc.printf(b"%s\\n", b"x" * 100)
libc.fflush(None)
"""
ATTEMPTS = tuple(
    Attempt(name, code, timeout_s=15, check=_bounded)
    for name, code in (
        ("a gigabyte on one line", "for _ in range(1000): print('x' * 10**6, end='')"),
        ("a hundred thousand lines", "for n in range(10**5): print(n)"),
        ("past Python", _RAW),
        ("from C", _PRINTF),
        ("stderr", "import sys\nfor _ in range(100): print('x' * 10**6, file=sys.stderr)"),
        ("a long result", "'x' * 10**8"),
        ("a long message", "raise ValueError('x' * 10**8)"),
        ("a long name", "raise type('x' * 10**6, (Exception,), {})()"),
        ("escape codes and nulls", "print('\\x1b[2J\\x00\\x07' * 10**5)"),
        ("half of a pair", "print('\\ud800' * 10)\n'\\udfff'"),
        ("a child that writes", "import subprocess\nsubprocess.run('head -c 300000000 /dev/zero', shell=True)"),
    )
)
