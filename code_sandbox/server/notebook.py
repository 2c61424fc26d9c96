"""What people know of a notebook and IPython alone does not give without terminal and screen, in both back-ends."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from code_sandbox.server import fonts

_INLINE = "module://matplotlib_inline.backend_inline"
_SHOWN_INLINE = ("inline", "auto", "agg", _INLINE, "none")
_INSTALL = re.compile(
    r"\s*(?:\S*python\S*\s+-m\s+)?(?:uv\s+)?(?:pip[0-9.]*|conda|mamba|apt|apt-get)\s+(?:install|download)\b"
)
_NO_INSTALL = "nothing can be installed here: the sandbox has no network. NumPy, pandas, SciPy, scikit-image, OpenCV, "
_NO_INSTALL += "SymPy, Pillow and Matplotlib are there"
_CHUNK_BYTES = 1 << 16
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


def shown_text(data: Mapping[str, Any]) -> str:
    """What `display` of something without pixels says: its text, or that it cannot be shown."""
    plain = str(data.get("text/plain", ""))
    if plain and not plain.startswith("<IPython.core.display."):
        return plain
    for mime in _TEXTS:
        if mime in data:
            return str(data[mime])
    kinds = ", ".join(mime for mime in data if mime != "text/plain") or plain
    return f"[{kinds} cannot be shown here; show text, a PIL image or a figure]" if kinds else ""


def install(shell: Any) -> None:
    """Make a shell behave as in a notebook: commands run, figures of every backend appear, an interrupt is quick."""
    _run_commands_through_a_pipe(shell)
    _report_interrupts_in_a_line(shell)
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


def _report_interrupts_in_a_line(shell: Any) -> None:
    """A time-out interrupts; to render a traceback through a library takes seconds, in which the session would be killed."""
    render = shell.showtraceback

    def showtraceback(exc_tuple: Any = None, *arguments: Any, **options: Any) -> None:
        kind, value = (exc_tuple or sys.exc_info())[:2]
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            shell._showtraceback(kind, value, [f"KeyboardInterrupt: {value}"])
        else:
            render(exc_tuple, *arguments, **options)

    shell.showtraceback = showtraceback


def _show_figures_inline(shell: Any) -> None:
    """There is no screen: whatever backend is asked for, figures are shown, and a line says so."""
    import matplotlib.pyplot as pyplot

    switch, enable = pyplot.switch_backend, shell.enable_matplotlib

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

    pyplot.switch_backend = switch_backend
    shell.enable_matplotlib = enable_matplotlib
