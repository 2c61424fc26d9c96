"""Inside a session of the `fork` back-end: an IPython shell that runs cells as a notebook would, without a Jupyter kernel.

The shell is built once in the zygote and inherited by every fork, which is why a session opens in milliseconds. A message
on the socket is its length in four bytes (big endian) and msgpack; every reply repeats its request's `nonce`.

    ready     {"ready": true} or {"failed": str}, unasked
    open      {"nonce", "seed": int, "images": int}, with that many image files attached as descriptors; answered with
              {"nonce"}, and "unreadable": str if one is none
    cell      {"nonce", "code": str, "silent": bool, "max_chars": int, "max_images": int, "max_bytes": int,
               "max_pixels": int, "mime": str}
    reply     {"nonce", "status": "ok" | "error", "stdout", "stderr", "result", "error": [name, message, traceback] | None,
               "images": [[mime, bytes]], "more_images": int}

The code that runs here may write to the socket too: the server believes nothing of what it reads.

Differences from ipykernel, all tested: what a *subprocess* writes comes after what Python printed; when a cell has to be
killed, its output until then is lost.
"""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import contextvars
import getpass
import os
import random
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import msgpack
import nest_asyncio2
import numpy
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.external.pickleshare import PickleShareDB
from traitlets import Type
from traitlets.config import Config

from code_sandbox.pictures import BROKEN
from code_sandbox.server.confinement import LENGTH
from code_sandbox.server.display import FIGURE_OPTIONS, ImageEncoder, QuestionImage
from code_sandbox.server.notebook import CellStream, install, is_object, live_with_forks, shown_text

_Result = TypeVar("_Result")

MAX_IMAGES = 64
_MIMES = ("image/png", "image/jpeg")


class _Collected:
    """What the running cell has shown so far."""

    def __init__(self, max_images: int = 0, max_bytes: int = 0) -> None:
        self.images: list[tuple[str, bytes]] = []
        self.more_images = 0
        self.notes: list[str] = []
        """Why something is not shown; they stand on stderr."""
        self._room = max_bytes
        self.result = ""
        self.error: tuple[str, str, str] | None = None
        self._max_images = max_images

    def add(self, data: Mapping[str, Any], encoder: ImageEncoder) -> bool:
        """Keep an image; False if it is none."""
        for mime in _MIMES:
            if mime in data:
                if len(self.images) >= self._max_images:
                    self.more_images += 1
                    return True
                value = data[mime]
                file = encoder.bounded(value if isinstance(value, bytes) else base64.b64decode(value))
                if len(file) > self._room:
                    left = f"{self._room:,} are left for it"
                    self.notes.append(f"[an image was dropped: it has {len(file):,} bytes, and {left}]")
                    return True
                self._room -= len(file)
                self.images.append((mime, file))
                return True
        return False


class _Publisher(DisplayPublisher):
    def publish(self, data: Mapping[str, Any], metadata: Any = None, **_: Any) -> None:
        if not self.shell.collected.add(data, self.shell.encoder) and (text := shown_text(data)):
            print(text)

    def clear_output(self, wait: bool = False) -> None:
        """What was shown stays: there is no screen to clear."""


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None: ...

    def write_format_data(self, format_dict: Mapping[str, Any], md_dict: Any = None) -> None:
        self.shell.collected.result = str(format_dict.get("text/plain", ""))
        if not self.shell.collected.add(format_dict, self.shell.encoder) and is_object(self.shell.collected.result):
            print(shown_text(format_dict))

    def finish_displayhook(self) -> None:
        self._is_active = False


class CellLoop:
    """The event loop that all cells of a session run inside, as they do in a notebook.

    One session's own: a loop that was made before the fork would share its descriptors with every other session.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        nest_asyncio2.apply(self._loop)
        # What one cell sets there, such as the precision of decimal numbers, the next one finds.
        self._context = contextvars.copy_context()

    @property
    def is_running(self) -> bool:
        """Whether this is inside a cell."""
        return self._loop.is_running()

    def run(self, cell: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a cell to its end, with what earlier cells have left to do in the background."""
        # A cell within a cell, as of `%%capture`, cannot enter the context that is entered already.
        context = None if self.is_running else self._context
        task = self._loop.create_task(self._among_others(cell), context=context)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            # An interrupt while the cell awaited: the rest of it shall not run as a part of a later one.
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task)
            raise

    @staticmethod
    async def _among_others(cell: Coroutine[Any, Any, _Result]) -> _Result:
        await asyncio.sleep(0)  # for what has become due since the last cell
        result = await cell
        await asyncio.sleep(0)  # for what this one has begun
        return result


class CellShell(InteractiveShell):
    """IPython that collects instead of printing."""

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_Hook)
    collected = _Collected()
    encoder = ImageEncoder()
    loop: CellLoop | None = None

    def should_run_async(self, *arguments: Any, **options: Any) -> bool:
        """Every cell runs inside the loop, once there is one; a plain cell within a cell does already."""
        if self.loop is None or self.loop.is_running:
            return bool(super().should_run_async(*arguments, **options))
        return True

    def init_io(self) -> None: ...

    def enable_gui(self, gui: Any = None) -> None: ...

    def ask_exit(self) -> None:
        """`exit` in a notebook ends nothing that the server has not ended."""

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        self.collected.error = (etype.__name__, str(evalue), "\n".join(stb))


def _no_input(_: object = "") -> str:
    raise StdinNotImplementedError("raw_input was called, but this frontend does not support input requests.")


def _no_password(*_: object, **__: object) -> str:
    raise StdinNotImplementedError("getpass was called, but this frontend does not support input requests.")


def build_shell() -> CellShell:
    """Make the shell that every session inherits. Once a process, before any fork."""
    config = Config()
    # History would open a database and a thread, and a thread does not survive a fork.
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.IPCompleter.use_jedi = False
    config.InlineBackend.print_figure_kwargs = FIGURE_OPTIONS
    shell: CellShell = CellShell.instance(config=config)
    builtins.input = _no_input
    getpass.getpass = _no_password
    import matplotlib.pyplot  # noqa: F401  registers the inline backend's hooks with the shell

    shell.encoder.install(shell)
    install(shell)
    # What the first cell would make for the first time, every session inherits made.
    for code in ("1", "1/0"):
        run_cell(
            shell,
            {
                "code": code,
                "silent": False,
                "max_chars": 10,
                "max_images": 1,
                "max_bytes": 0,
                "max_pixels": 1,
                "mime": _MIMES[0],
            },
        )
    shell.reset(new_session=True)
    return shell


def run_cell(shell: CellShell, request: Mapping[str, Any], *, output: int | None = None) -> dict[str, Any]:
    """Run one cell and return the reply, without nonce.

    Args:
        shell: Of this session.
        request: The fields of a `cell` message.
        output: File descriptor behind 1 and 2, where subprocesses write.
    """
    max_chars = request["max_chars"]
    collected = shell.collected = _Collected(request["max_images"], request["max_bytes"])
    shell.encoder.max_pixels, shell.encoder.mime = request["max_pixels"], request["mime"]
    # One character more than allowed is kept, so that the server sees that something was cut.
    out, err = (CellStream(max_chars + 1, descriptor) for descriptor in (1, 2))
    saved = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = shell.run_cell(request["code"], store_history=not request["silent"], silent=request["silent"])
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
        "stdout": out.text() + ("" if output is None else _drain(output, max_chars)),
        "stderr": "\n".join(part for part in (err.text(), *collected.notes) if part),
        "result": collected.result[: max_chars + 1],
        "error": None if collected.error is None else tuple(part[: max_chars + 1] for part in collected.error),
        "images": collected.images,
        "more_images": collected.more_images,
    }


def _drain(output: int, max_chars: int) -> str:
    """What was written past Python, by subprocesses and C code."""
    size = os.lseek(output, 0, os.SEEK_END)
    if size == 0:
        return ""
    data = os.pread(output, min(size, 4 * max_chars), 0)
    os.ftruncate(output, 0)
    return data.decode(errors="replace")


def _open(shell: CellShell, request: Mapping[str, Any], descriptors: list[int]) -> dict[str, Any]:
    # A fork inherits the generators' state: without this every session would draw the same numbers. Seeded by the
    # session's name, so that a session replayed on another server draws what it drew.
    random.seed(request["seed"])
    numpy.random.seed(request["seed"] % 2**32)
    try:
        shell.push({f"image_{number}": QuestionImage(fd) for number, fd in enumerate(descriptors, start=1)})
    except BROKEN as error:
        return {"unreadable": str(error) or type(error).__name__}
    live_with_forks(shell)
    shell.loop = CellLoop()
    shell.loop_runner = shell.loop.run
    # multiprocessing asks the main module for it.
    shell.user_module.__spec__ = None
    if "" not in sys.path:
        # Modules that cells write are found where they lie.
        sys.path.insert(0, "")
    # Where magics keep what they remember; the shell was built in the zygote, with another directory.
    shell.db = PickleShareDB(f"{os.environ['IPYTHONDIR']}/db")
    return {}


def serve(shell: CellShell, connection: socket.socket, *, output: int) -> None:
    """Answer until the server hangs up."""
    _send(connection, {"ready": True})
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, MAX_IMAGES)
        head += _read(connection, LENGTH.size - len(head)) if head else b""
        if len(head) < LENGTH.size:
            return
        request = msgpack.unpackb(_read(connection, LENGTH.unpack(head)[0]))
        reply = run_cell(shell, request, output=output) if "code" in request else _open(shell, request, descriptors)
        _send(connection, reply | {"nonce": request["nonce"]})


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    packed = msgpack.packb(message, unicode_errors="replace")
    connection.sendall(LENGTH.pack(len(packed)) + packed)


def _read(connection: socket.socket, count: int) -> bytes:
    """Fewer bytes at the end of the stream."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
