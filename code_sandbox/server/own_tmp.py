"""`/tmp` for a session that shares the host's file system: a folder of its own under that name.

With namespaces it is one for every program. Without them nothing can be mounted, and the host's `/tmp` is everybody's, so
the name is understood here: by Python's file functions, by OpenCV, and in the commands that a cell starts. A convenience,
no boundary: what a session may really write to is Landlock's to say.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

_TMP = "/tmp"  # noqa: S108 - the name that is understood
_NAMED = re.compile(r"(?<![\w./~-])/tmp(?![\w.~-])[^\s;&|<>()'\"`]*")
_OF_ONE_PATH = (
    "access", "chdir", "chmod", "listdir", "lstat", "mkdir", "mkfifo", "open", "readlink", "remove", "rmdir", "scandir",
    "stat", "statvfs", "truncate", "unlink", "utime",
)  # fmt: skip
_OF_TWO_PATHS = ("link", "rename", "replace", "symlink")
_NAMES = ("path", "file", "filename", "src", "dst", "database")
_OPENCV = ("haveImageReader", "haveImageWriter", "imcount", "imread", "imreadmulti", "imwrite", "imwritemulti")


class OwnTmp:
    """Says what a path or a command means here.

    Args:
        folder: That stands for `/tmp`.
        kept: Paths below the host's `/tmp` that are what they are: where Python is, and what the session owns.
    """

    def __init__(self, folder: str, kept: Sequence[str]) -> None:
        self._folder = folder
        self._kept = tuple(path for path in kept if path.startswith(f"{_TMP}/"))

    def path(self, path: Any) -> Any:
        """The path as the host knows it; anything that is no path, such as a descriptor, as it is."""
        if isinstance(path, bytes):
            return os.fsencode(self.path(os.fsdecode(path)))
        name = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(name, str) or not (name == _TMP or name.startswith(f"{_TMP}/")):
            return path
        is_kept = any(name == kept or name.startswith(f"{kept}/") for kept in self._kept)
        return path if is_kept else self._folder + name.removeprefix(_TMP)

    def command(self, text: Any) -> Any:
        """A command, or one word of it, with every path below `/tmp` replaced."""
        return _NAMED.sub(lambda found: self.path(found[0]), text) if isinstance(text, str) else self.path(text)

    def tell(self, error: OSError) -> None:
        """Let an error name the path as it was given."""
        if isinstance(error.filename, str) and error.filename.startswith(self._folder):
            error.filename = _TMP + error.filename.removeprefix(self._folder)


def use(folder: str, *, kept: Sequence[str]) -> None:
    """Let the name mean the folder, in this process and what it starts, for good."""
    import cv2
    from IPython.core import interactiveshell
    from IPython.core.magics.script import ScriptMagics

    own = OwnTmp(folder, kept)
    of_one_path = [(os, name) for name in _OF_ONE_PATH] + [(cv2, name) for name in _OPENCV] + [(sqlite3, "connect")]
    for module, name in of_one_path:
        setattr(module, name, _understanding(getattr(module, name), own, 1))
    for name in _OF_TWO_PATHS:
        setattr(os, name, _understanding(getattr(os, name), own, 2))
    builtins.open = io.open = interactiveshell.io_open = _understanding(builtins.open, own, 1)
    run, start, run_script = os.system, subprocess.Popen.__init__, ScriptMagics.shebang
    chosen = tempfile._sanitize_params  # type: ignore[attr-defined]

    def system(command: Any) -> int:
        return run(own.command(command))

    def popen(self: Any, args: Any, *arguments: Any, **options: Any) -> None:
        args = [own.command(word) for word in args] if isinstance(args, list | tuple) else own.command(args)
        if "cwd" in options:
            options["cwd"] = own.path(options["cwd"])
        start(self, args, *arguments, **options)

    @functools.wraps(run_script)
    def shebang(self: Any, line: str, cell: str) -> None:
        run_script(self, line, own.command(cell))

    def choose(prefix: Any, suffix: Any, folder: Any) -> Any:
        return chosen(prefix, suffix, own.path(folder))

    # It has its own references to what removes files.
    tempfile._sanitize_params = choose  # type: ignore[attr-defined]
    os.system = system
    subprocess.Popen.__init__ = popen  # type: ignore[method-assign]
    ScriptMagics.shebang = shebang


def _understanding(function: Callable[..., Any], own: OwnTmp, num_paths: int) -> Callable[..., Any]:
    """The function, whose first arguments, by whatever name, are paths."""

    @functools.wraps(function)
    def understood(*arguments: Any, **options: Any) -> Any:
        paths = (own.path(path) for path in arguments[:num_paths])
        named = {name: own.path(value) if name in _NAMES else value for name, value in options.items()}
        try:
            return function(*paths, *arguments[num_paths:], **named)
        except OSError as error:
            own.tell(error)
            raise

    return understood
