"""math-verify in a process of its own, which is ended when it takes too long.

SymPy computes what it is given: `99999999!` or `9^{9^9}` in an answer would hold up a whole rollout worker, and its
time-outs need a main thread. The process holds no more than 2 GiB (on Linux), is started at first use (half a second) and
again as soon as it was ended, and ends with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_START_S = 60.0
_MAX_BYTES = 2 << 30


class MathsProcess:
    """Asks whether two expressions are equal, for at most a given time. Safe to share between threads.

    Args:
        timeout_s: For one question.
    """

    def __init__(self, *, timeout_s: float = 1.0) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def equal(self, gold: str, answer: str) -> bool | None:
        """True if proven, False if not, None if it could not be parsed or took too long."""
        return self._ask([gold, answer])  # type: ignore[no-any-return]

    def plain(self, latex: str) -> str | None:
        """LaTeX as SymPy writes it, such as `1/2`; None if it could not be parsed or took too long."""
        return self._ask([latex])  # type: ignore[no-any-return]

    def _ask(self, question: list[str]) -> Any:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            if not self._ready and self._read(_START_S) is None:
                raise RuntimeError("math-verify did not start; is it installed? pip install 'deepeyes[judge]'")
            self._ready = True
            assert self._process is not None
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(question).encode() + b"\n")
                self._process.stdin.flush()
                line = self._read(self._timeout_s)
                if line is not None:
                    return json.loads(line)
            except (OSError, ValueError):
                self._stop()
            self._start()  # the next question does not wait for it
            return None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._stop()
        root = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "judge.maths"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def _read(self, timeout_s: float) -> bytes | None:
        """A line, or None and the process is ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        # One line is one write below the size of a pipe, so that what is readable is whole.
        if select.select([self._process.stdout], [], [], timeout_s)[0]:
            line = self._process.stdout.readline()
            if line:
                return line
        self._stop()
        return None

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._ready = False
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


_shared: MathsProcess | None = None
_shared_lock = threading.Lock()


def shared() -> MathsProcess:
    """The one of this process, started at first use."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = MathsProcess()
            atexit.register(_shared.close)
        return _shared


def _serve() -> None:
    """The other side: a question a line, an answer a line. Two texts are compared, one is only read."""
    import resource

    from latex2sympy2_extended import latex2sympy
    from math_verify import parse, verify

    if sys.platform == "linux":  # macOS takes no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        found: bool | str | None
        try:
            texts = json.loads(line)
            if len(texts) == 1:
                found = str(latex2sympy(texts[0]))
            else:
                # The time limit is the parent's.
                parsed = [parse(text, parsing_timeout=0, raise_on_error=False) for text in texts]
                found = verify(*parsed, timeout_seconds=0, raise_on_error=False) if all(parsed) else None
        except Exception:  # noqa: BLE001 - the parsers raise errors of many kinds
            found = None
        out.write(json.dumps(found).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    _serve()
