"""Inside a session of the `fork` back-end: an IPython shell that runs cells as a notebook would, without a Jupyter kernel.

The shell is built once in the zygote and inherited by every fork, which is why a session opens in milliseconds. Cells
arrive over a Unix socket; a message is its length in four bytes (big endian) and msgpack.

    request   {"code": str, "silent": bool, "max_chars": int}
    reply     {"status": "ok" | "error", "stdout", "stderr", "result", "error": [name, message, traceback] | None,
               "images": [[mime, bytes]]}

Differences from ipykernel, all tested: what a *subprocess* writes comes after what Python printed; when a cell has to be
killed, its output until then is lost.
"""

from __future__ import annotations

import base64
import builtins
import io
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

import msgpack
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

_LENGTH = struct.Struct(">I")
_MIMES = ("image/png", "image/jpeg")


class _BoundedText(io.TextIOBase):
    """Keeps the first `room` characters and forgets the rest, so that a flood costs no memory."""

    def __init__(self, room: int) -> None:
        self._parts: list[str] = []
        self._room = room

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._room > 0:
            self._parts.append(text[: self._room])
            self._room -= len(self._parts[-1])
        return len(text)

    def text(self) -> str:
        return "".join(self._parts)


class _Collected:
    """What the running cell has shown so far."""

    def __init__(self) -> None:
        self.images: list[tuple[str, bytes]] = []
        self.result = ""
        self.error: tuple[str, str, str] | None = None

    def add(self, data: Mapping[str, Any]) -> None:
        for mime in _MIMES:
            if mime in data:
                value = data[mime]
                self.images.append((mime, value if isinstance(value, bytes) else base64.b64decode(value)))
                return


class _Publisher(DisplayPublisher):
    def publish(self, data: Mapping[str, Any], metadata: Any = None, **_: Any) -> None:
        self.shell.collected.add(data)


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None: ...

    def write_format_data(self, format_dict: Mapping[str, Any], md_dict: Any = None) -> None:
        self.shell.collected.result = str(format_dict.get("text/plain", ""))
        self.shell.collected.add(format_dict)

    def finish_displayhook(self) -> None:
        self._is_active = False


class CellShell(InteractiveShell):
    """IPython that collects instead of printing."""

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_Hook)
    collected = _Collected()

    def init_io(self) -> None: ...

    def enable_gui(self, gui: Any = None) -> None: ...

    def ask_exit(self) -> None:
        """`exit` in a notebook ends nothing that the server has not ended."""

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        self.collected.error = (etype.__name__, str(evalue), "\n".join(stb))


def _no_input(_: object = "") -> str:
    raise StdinNotImplementedError("raw_input was called, but this frontend does not support input requests.")


def build_shell() -> CellShell:
    """Make the shell that every session inherits. Once a process, before any fork."""
    config = Config()
    # History would open a database and a thread, and a thread does not survive a fork.
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.IPCompleter.use_jedi = False
    shell: CellShell = CellShell.instance(config=config)
    builtins.input = _no_input
    import matplotlib.pyplot  # noqa: F401  registers the inline backend's hooks with the shell

    return shell


def run_cell(shell: CellShell, code: str, *, silent: bool, max_chars: int, raw: int) -> dict[str, Any]:
    """Run one cell and return the reply.

    Args:
        shell: Of this session.
        code: As the model wrote it.
        silent: Not counted, not stored.
        max_chars: Of stdout and stderr each; one more is kept, so that the server sees that something was cut.
        raw: File descriptor behind 1 and 2, where subprocesses write.
    """
    collected = shell.collected = _Collected()
    out, err = _BoundedText(max_chars + 1), _BoundedText(max_chars + 1)
    saved = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = shell.run_cell(code, store_history=not silent, silent=silent)
        failure = outcome.error_before_exec or outcome.error_in_exec
    except KeyboardInterrupt as error:
        # The interrupt came while IPython was tidying up after the cell.
        failure = error
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout, sys.stderr = saved
    if failure is not None and collected.error is None:
        collected.error = (type(failure).__name__, str(failure), f"{type(failure).__name__}: {failure}")
    return {
        "status": "ok" if collected.error is None else "error",
        "stdout": out.text() + _drain(raw, max_chars),
        "stderr": err.text(),
        "result": collected.result[: max_chars + 1],
        "error": collected.error,
        "images": collected.images,
    }


def _drain(raw: int, max_chars: int) -> str:
    """What was written past Python, by subprocesses and C code."""
    size = os.lseek(raw, 0, os.SEEK_CUR)
    if size == 0:
        return ""
    data = os.pread(raw, min(size, 4 * max_chars), 0)
    os.ftruncate(raw, 0)
    os.lseek(raw, 0, os.SEEK_SET)
    return data.decode(errors="replace")


def serve(shell: CellShell, address: str, raw: int) -> None:
    """Answer cells until the server hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        while True:
            head = _read(connection, _LENGTH.size)
            if head is None:
                return
            body = _read(connection, _LENGTH.unpack(head)[0])
            if body is None:
                return
            request = msgpack.unpackb(body)
            reply = run_cell(shell, request["code"], silent=request["silent"], max_chars=request["max_chars"], raw=raw)
            packed = msgpack.packb(reply, unicode_errors="replace")
            connection.sendall(_LENGTH.pack(len(packed)) + packed)


def _read(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(count - len(parts))
        except OSError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
