"""What people know of a notebook and IPython alone does not give without terminal and screen, in both back-ends."""

from __future__ import annotations

import codecs
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from code_sandbox.server import fonts

_INLINE = "module://matplotlib_inline.backend_inline"
_PIXELS = ("png", "png2x", "retina", "jpg", "jpeg")
_SHOWN_INLINE = ("inline", "auto", "agg", _INLINE, "none")
_INSTALL = re.compile(
    r"\s*(?:\S*python\S*\s+-m\s+)?(?:uv\s+)?(?:pip[0-9.]*|conda|mamba|apt|apt-get)\s+(?:install|download)\b"
)
_NO_INSTALL = "nothing can be installed here: the sandbox has no network. NumPy, pandas, SciPy, scikit-image, OpenCV, "
_NO_INSTALL += "SymPy, Pillow and Matplotlib are there"
_CHUNK_BYTES = 1 << 16
_SHOWN_CALLS = 20
"""At each end of a long traceback."""
_NOT_SHOWN = "cannot be shown here; show text, a PIL image or a figure"
_TEXTS = ("text/markdown", "text/latex", "text/html")


class BoundedText(io.TextIOBase):
    """Keeps the first and the last `room` characters, so that a flood costs no memory and its end is not lost."""

    encoding = "UTF-8"

    def __init__(self, room: int) -> None:
        self._head: list[str] = []
        self._tail = ""
        self._room = self._left = room

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Take all of the text, and forget what lies between the ends."""
        head = text[: self._left]
        if head:
            self._head.append(head)
            self._left -= len(head)
        if len(head) < len(text):
            self._tail = (self._tail + text[len(head) :])[-self._room :]
        return len(text)

    def text(self) -> str:
        """Both ends; longer than `room` if anything came after the first."""
        return "".join(self._head) + self._tail


class CellStream(BoundedText):
    """What a cell has as stdout or stderr: text is kept here, bytes too, and subprocesses get the descriptor behind it."""

    errors = "replace"

    def __init__(self, room: int, descriptor: int) -> None:
        super().__init__(room)
        self._descriptor = descriptor
        self.buffer = _BytesAsText(self)

    def fileno(self) -> int:
        """The descriptor of the file that subprocesses and C code write to."""
        return self._descriptor

    def reconfigure(self, **_: Any) -> None:
        """Nothing to do: the text never becomes bytes here."""


class _BytesAsText(io.BufferedIOBase):
    """The bytes side of a text stream; closing it, as a wrapper does that is thrown away, leaves the stream open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Take all of it."""
        self._stream.write(self._decoder.decode(bytes(data)))
        return len(data)

    def close(self) -> None:
        """Stay open."""


def shown_text(data: Mapping[str, Any]) -> str:
    """What `display` of something without pixels says: its text, or that it cannot be shown."""
    plain = str(data.get("text/plain", ""))
    drawn = ", ".join(mime for mime in data if mime.startswith("image/") or mime == "application/pdf")
    if plain and not is_object(plain):
        return f"{plain}\n[{drawn} {_NOT_SHOWN}]" if drawn else plain
    for mime in _TEXTS:
        # A player's or a frame's own markup says nothing.
        if mime in data and not plain.startswith("<IPython.lib."):
            return str(data[mime])
    kinds = ", ".join(mime for mime in data if mime != "text/plain") or plain
    return f"[{kinds} {_NOT_SHOWN}]" if kinds else ""


def is_object(text: str) -> bool:
    """Whether the text of a value is only the name of something that would be looked at."""
    return text.startswith(("<IPython.core.display.", "<IPython.lib.display."))


def complete_streams() -> None:
    """Give a kernel's streams what programs expect of a file."""
    kind: Any = type(sys.stdout)
    kind.fileno = lambda stream: 2 if stream.name == "stderr" else 1
    kind.reconfigure = lambda *_, **__: None
    sys.stdout.buffer, sys.stderr.buffer = map(_BytesAsText, (sys.stdout, sys.stderr))  # type: ignore[misc, assignment]


def live_with_forks(shell: Any) -> None:
    """Let forked processes print where their descriptors lead, for they have copies of the streams that nobody reads.

    One that comes to the end of the cell ends there: the answer is its parent's.
    """
    session = os.getpid()

    def write_to_descriptors() -> None:
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), errors="replace", write_through=True) for fd in (1, 2)
        )

    def end(*_: object) -> None:
        if os.getpid() != session:
            os._exit(0)

    os.register_at_fork(after_in_child=write_to_descriptors)
    shell.events.register("post_run_cell", end)


def install(shell: Any) -> None:
    """Make a shell behave as in a notebook: commands run, figures of every backend appear, an interrupt is quick."""
    _run_commands_through_a_pipe(shell)
    _report_failures_quickly(shell)
    _show_figures_inline(shell)
    fonts.use()
    from PIL import ImageShow

    # Before the programs that open a window.
    ImageShow.register(ImageShow.IPythonViewer(), 0)


def _run_commands_through_a_pipe(shell: Any) -> None:
    """`!cmd` and `%pip`; IPython's own way wants a terminal, and a session has none."""

    def system(command: str) -> None:
        command = shell.var_expand(command, depth=1)
        if _INSTALL.match(command):
            print(_NO_INSTALL)
            shell.user_ns["_exit_code"] = 1
            return
        if command.rstrip().endswith("&"):
            raise OSError("a command cannot go on in the background after `!`; use subprocess.Popen")
        with subprocess.Popen(  # noqa: S602 - it is the model's own command, in its own session
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert isinstance(process.stdout, io.BufferedReader)
            try:
                while part := process.stdout.read1(_CHUNK_BYTES):
                    sys.stdout.write(part.decode(errors="replace"))
            except BaseException:
                process.kill()
                raise
        shell.user_ns["_exit_code"] = process.returncode

    shell.system = system
    shell.register_magic_function(lambda line: system(f"{sys.executable} -m pip {line}"), "line", "pip")


def _report_failures_quickly(shell: Any) -> None:
    """Rendering what an interrupt or an endless recursion has come through takes seconds, in which the session is killed."""
    render = shell.showtraceback

    def showtraceback(exc_tuple: Any = None, *arguments: Any, **options: Any) -> None:
        kind, value = (exc_tuple or sys.exc_info())[:2]
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            shell._showtraceback(kind, value, [f"KeyboardInterrupt: {value}"])
        else:
            if left_out := _leave_out_calls(value):
                print(f"[of the traceback {left_out:,} calls in the middle are left out]", file=sys.stderr)
            render(exc_tuple, *arguments, **options)

    shell.showtraceback = showtraceback


def _leave_out_calls(error: BaseException | None) -> int:
    """Shorten the traceback of an error, and of what it came from, to both ends; how many calls that leaves out."""
    left_out = 0
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        calls = []
        call = error.__traceback__
        while call is not None:
            calls.append(call)
            call = call.tb_next
        if len(calls) > 2 * _SHOWN_CALLS:
            calls[_SHOWN_CALLS - 1].tb_next = calls[-_SHOWN_CALLS]
            left_out += len(calls) - 2 * _SHOWN_CALLS
        error = error.__cause__ or error.__context__
    return left_out


def _show_figures_inline(shell: Any) -> None:
    """There is no screen: whatever backend is asked for, figures are shown, and a line says so."""
    import matplotlib.pyplot as pyplot
    from IPython.core import pylabtools

    switch, enable, drawn = pyplot.switch_backend, shell.enable_matplotlib, pylabtools.print_figure

    def say(name: object) -> None:
        if str(name).lower() not in _SHOWN_INLINE:
            print(f"[there is no screen for the backend {name!r}; figures are shown inline]", file=sys.stderr)

    def switch_backend(newbackend: Any) -> None:
        if isinstance(newbackend, str):
            say(newbackend)
        switch(_INLINE)

    def enable_matplotlib(gui: Any = None) -> Any:
        say(gui)
        return enable("inline")

    def print_figure(figure: Any, fmt: str = "png", *arguments: Any, **options: Any) -> Any:
        if fmt not in _PIXELS:
            options.pop("pil_kwargs", None)
        return drawn(figure, fmt, *arguments, **options)

    pylabtools.print_figure = print_figure
    pyplot.switch_backend = switch_backend
    shell.enable_matplotlib = enable_matplotlib
