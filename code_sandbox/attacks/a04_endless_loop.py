"""4. Loops that do not end, and that do not want to be ended."""

from code_sandbox.attacks.suite import Attempt

_SWALLOW = """
while True:
    try:
        while True: pass
    except BaseException:
        pass
"""
_IGNORE = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True: pass
"""
_BLOCK = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
"""
_PATTERN = "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')"
_POWER = "x = 3 ** (10 ** 9)"
_MATRIX = "import numpy\nx = numpy.random.rand(9000, 9000)\nwhile True: x @ x"
_FINALLY = """
def forever():
    try:
        yield from iter(int, 1)
    finally:
        while True: pass
for _ in forever(): pass
"""
ATTEMPTS = tuple(
    Attempt(name, code, timeout_s=1.5, reported=("timeout",), late_s=2.5)
    for name, code in (
        ("while True", "while True: pass"),
        ("every exception is caught", _SWALLOW),
        ("every signal is ignored", _IGNORE),
        ("every signal is blocked", _BLOCK),
        ("a regular expression that backtracks", _PATTERN),
        ("a power that takes an hour", _POWER),
        ("matrix products", _MATRIX),
        ("a finally that does not end", _FINALLY),
    )
)
