"""What all programs have in common: how their options are shown, how they end, and that they are not silent for long.

A program takes its options with `CommandParser`, does its work inside `program`, and puts what takes long inside
`sign_of_life`. README has the table of exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from code_sandbox.errors import SandboxError
from code_sandbox.redaction import redacted

FAILED, MISTAKE, NOT_SCORED, OUTAGE = 1, 2, 3, 4
"""Exit codes: something did not work or is not well; called wrongly; no score came of it; a server that is needed is away.
"""
_OF_USERS = (
    ValueError, LookupError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError,
    OverflowError,
)  # fmt: skip
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 1 << 20
_QUIET_S = 25.0
"""Nobody sees nothing for longer than half a minute."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written; a default where there is one and the help does not say it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        if "default" in told.lower() or action.default in (None, False, "", [], ()) or action.nargs == 0:
            return told
        return super()._get_help_string(action)


class _Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """What the list of commands says of one stands above its own help, too."""

    def add_parser(self, name: str, **options: Any) -> Any:
        return super().add_parser(name, **{"description": options.get("help"), **options})


class CommandParser(argparse.ArgumentParser):
    """A parser whose help has the one style of all programs."""

    collecting = False
    """Parsers are wanted, not what they read: see `parser_of`."""

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        if examples:
            options["epilog"] = "\n".join(["examples:", *(f"  {line}" for line in examples)])
        super().__init__(**{"formatter_class": _Formatter, **options})
        self.register("action", "parsers", _Commands)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; all options would hide it."""
        end(MISTAKE, f"{self.prog}: error: {message}; `{self.prog} --help` lists what there is")

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """What argparse does; all its other ways of reading come through here."""
        if CommandParser.collecting:
            raise _Collected(self)
        return super().parse_known_args(*arguments, **options)


class _Collected(BaseException):
    """A parser was made."""


def parser_of(main: Callable[[list[str]], object]) -> CommandParser:
    """The parser of a program, which is not run.

    Args:
        main: Makes a `CommandParser` and reads arguments with it before anything else.
    """
    CommandParser.collecting = True
    try:
        main([])
    except _Collected as found:
        return found.args[0]  # type: ignore[no-any-return]
    finally:
        CommandParser.collecting = False
    raise TypeError(f"{main.__module__}.main reads no arguments")


class CommandEnded(SystemExit):
    """A program ends with a code; its text is what was said of it on standard error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status)
        self._text = text

    def __str__(self) -> str:
        return self._text


def end(status: int, text: str) -> NoReturn:
    """Say why on standard error, without secrets, and end.

    Raises:
        CommandEnded: Always.
    """
    text = redacted(text)
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    raise CommandEnded(status, text)


@contextlib.contextmanager
def program(prog: str, *, note: str = "") -> Iterator[None]:
    """The work of a program; what a user can mend is one line with the right exit code, and shows no traceback.

    SIGTERM and SIGHUP end it as Ctrl-C does, so that what it started is stopped.

    Args:
        prog: How the program was called, for that line.
        note: What holds after an interruption, such as that the same command resumes.

    Raises:
        CommandEnded: It was interrupted, or there was an error that is told.
    """
    with _signals() as interrupt:
        try:
            try:
                yield
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            end(128 + interrupt.number, f"{prog}: interrupted{f'; {note}' if note else ''}")
        except SystemExit as ended:
            # Ray's own handler, which it puts above ours.
            if ended.code == signal.SIGTERM:
                end(128 + signal.SIGTERM, f"{prog}: interrupted{f'; {note}' if note else ''}")
            raise
        except BrokenPipeError:
            # Whoever read has seen enough, as `head` does; Python would complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None
        except ExceptionGroup as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            _tell(prog, first, group)
        except Exception as error:  # noqa: BLE001 - what is not for users is raised again
            _tell(prog, error, error)


def _tell(prog: str, error: BaseException, raised: BaseException) -> NoReturn:
    status = status_of(error)
    if status is None:
        raise raised
    end(status, f"{prog}: {line_of(error)}")


def status_of(error: BaseException) -> int | None:
    """The exit code of an error; None is one of ours, whose traceback is wanted.

    An exception class may have its own, as `exit_status`.
    """
    own = getattr(error, "exit_status", None)
    if isinstance(own, int):
        return own
    # A key or a place that is not there and that nobody put into words is a fault in the program.
    if type(error) in (KeyError, IndexError):
        return None
    if isinstance(error, ConnectionError | TimeoutError | SandboxError):
        return OUTAGE
    if isinstance(error, _OF_USERS) or (isinstance(error, OSError) and error.errno == errno.EADDRINUSE):
        return MISTAKE
    return FAILED if isinstance(error, OSError | RuntimeError) else None


def line_of(error: BaseException) -> str:
    """An error as a user reads it: of pydantic's the names and what is wrong, of a full disk which one it is."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        named = f" for {error.filename}" if error.filename else ""
        full = ", ".join(_full_folders())
        return f"{error.strerror}{named}{f': {full} is full' if full else ''}; make room, and run the same command again"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error).__module__.startswith("pydantic") and callable(problems := getattr(error, "errors", None)):
        return "; ".join(problem_line(one) for one in problems())
    text = str(error) or type(error).__name__
    # YAML's messages draw the place.
    cause: BaseException | None = error
    while cause is not None and not type(cause).__module__.startswith("yaml"):
        cause = cause.__cause__
    return text if cause is None else " ".join(text.split())


def problem_line(problem: Mapping[str, Any], more: str = "") -> str:
    """One of pydantic's problems with settings: its name, what was expected, and what was given.

    Args:
        problem: Of `ValidationError.errors()`.
        more: Added to what is said, such as the names there are.
    """
    name = ".".join(map(str, problem["loc"]))
    said = {"extra_forbidden": "there is no such setting", "missing": "is not given"}.get(problem["type"])
    if said is None:
        given = problem.get("input")
        told = problem["type"] != "value_error" and isinstance(given, str | int | float | bool)
        said = problem["msg"].removeprefix("Value error, ") + (f", not {given!r}" if told else "")
    return f"{name}: {said}{more}" if name else f"{said}{more}"


def _full_folders() -> list[str]:
    """Full ones among the folders that the program was told of or writes to unasked."""
    words = [word.rpartition("=")[2] for word in sys.argv[1:]]
    places = {Path(word).absolute() for word in (*words, ".", tempfile.gettempdir()) if word}
    full = set()
    for place in places:
        there = next((one for one in (place, *place.parents) if one.is_dir()), Path("/"))
        if shutil.disk_usage(there).free < _FULL_BYTES:
            full.add(str(there))
    return sorted(full)


class _Interrupt:
    """A handler that does what Ctrl-C does, and knows which signal came."""

    def __init__(self) -> None:
        self.number = int(signal.SIGINT)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        # asyncio's, if it has one: it ends the loop in order.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


@contextlib.contextmanager
def _signals() -> Iterator[_Interrupt]:
    """Let signals that end a program do what Ctrl-C does; a program inside a program has the handler of the outer one."""
    outer = signal.getsignal(signal.SIGTERM)
    interrupt = outer if isinstance(outer, _Interrupt) else _Interrupt()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # What was started with nohup, or has a handler of its own, keeps it.
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)


@contextlib.contextmanager
def sign_of_life(text: str | Callable[[], str], *, every_s: float = _QUIET_S) -> Iterator[None]:
    """Say every now and then on standard error what is being done; on a terminal nothing, where bars and tables move.

    Args:
        text: What is being done, or how far it is.
        every_s: Pause between two lines.
    """
    done, started = threading.Event(), time.monotonic()

    def say() -> None:
        while not done.wait(every_s):
            told = text if isinstance(text, str) else text()
            sys.stderr.write(f"{redacted(told)} · {time.monotonic() - started:.0f} s\n")
            sys.stderr.flush()

    if sys.stderr.isatty():
        yield
        return
    thread = threading.Thread(target=say, daemon=True, name="sign of life")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def positive(text: str) -> int:
    """A count on a command line, for `type=`.

    Raises:
        argparse.ArgumentTypeError: It is none, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be; expected a whole number, at least 1")
    return int(text)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let a program that reads print what it found for other programs."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(found: object) -> None:
    """Print what was found; what JSON does not know, such as a path, as text."""
    # ASCII: what others wrote may hold what a terminal would act on, or half surrogates.
    sys.stdout.write(json.dumps(found, indent=1, default=str) + "\n")
