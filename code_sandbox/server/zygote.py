"""A warm Python process that forks one session per request.

Importing IPython, NumPy and Matplotlib takes about two seconds of CPU; a fork of a process that has already imported them
takes milliseconds, and its memory is shared until written. With the back-end `jupyter` every fork becomes a real
ipykernel that speaks the Jupyter protocol; with `fork` it runs cells itself (worker.py).

Protocol: the server writes one JSON object a line to stdin, `{"connection_file" | "socket": str, "directory": str,
"memory_limit_bytes": int, "file_limit_bytes": int, "cut_network": bool}`, and reads one line back, `{"pid": int}` or
`{"error": str}`. The first line written is `{"ready": true, "network_can_be_cut": bool}`. When stdin is closed, the
process ends, and its sessions with it.

Not covered: files that the server's user can read, and processes of the same user.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends. Linux only; elsewhere a no-op."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# What a kernel imports when it starts; found by comparing sys.modules before and after.
_KERNEL = (
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "tornado.locks",
    "tornado.platform.asyncio",
    "tornado.queues",
)
# What cells are likely to import; with the pickle-free protocol of worker.py it costs nothing to have it.
_SESSION = ("code_sandbox.server.worker", "json", "math", "re", "collections", "itertools", "statistics")
_COMMON = (
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "matplotlib.pyplot",
    "numpy.random",
)


def cut_network() -> bool:
    """Give this process a network namespace of its own, which holds no interface that is up: nothing can be reached.

    Root may do so directly; others where unprivileged user namespaces are allowed. Sockets in the file system, over
    which the server talks to a session, are not part of a network namespace.

    Returns:
        False where the system forbids it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    return bool(libc.unshare(flags) == 0)


def _network_can_be_cut() -> bool:
    """Try it in a child: what a namespace does to a process cannot be undone."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if cut_network() else 1)
    return os.waitpid(pid, 0)[1] == 0


def warm_up(backend: str, font_directory: Path) -> None:
    """Import what most cells use, and draw once so that the font cache is filled before any fork."""
    os.environ.setdefault("MPLCONFIGDIR", str(font_directory))
    os.environ.update(MPLBACKEND="module://matplotlib_inline.backend_inline")
    # Without debugpy a kernel starts in half the time; it is only for attaching a debugger.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for module in (*_COMMON, *(_KERNEL if backend == "jupyter" else _SESSION)):
        importlib.import_module(module)
    import PIL.Image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    PIL.Image.init()
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.add_subplot().set_title("warm")
    with open(os.devnull, "wb") as sink:
        figure.savefig(sink, format="png")


def _prepare_child(request: dict[str, Any]) -> None:
    """In the forked child: drop what belongs to the zygote, apply limits."""
    os.setsid()
    _die_with_parent()
    if sys.platform == "linux":
        # No set-uid program gives back what was taken away.
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if request["cut_network"] and not cut_network():
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(Path(request["directory"]) / "kernel.log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 256)
    # closefd: ipykernel drops these objects, and the descriptors must outlive them for what subprocesses write.
    sys.stdin, sys.stdout, sys.stderr = (open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115
    home = Path(request["directory"]) / "work"
    home.mkdir(exist_ok=True)
    os.chdir(home)
    os.environ.update(HOME=str(home), IPYTHONDIR=str(Path(request["directory"]) / "ipython"), TMPDIR=str(home))
    for limit, value in (
        (resource.RLIMIT_AS, request["memory_limit_bytes"]),
        (resource.RLIMIT_FSIZE, request["file_limit_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    import random

    import numpy

    # A fork inherits the generators' state: without this every session would draw the same numbers.
    random.seed()
    numpy.random.seed()


def _become_session(request: dict[str, Any]) -> NoReturn:
    """Run cells that the server sends."""
    from code_sandbox.server import worker

    worker.serve(worker.CellShell.instance(), request["socket"], raw=1)
    os._exit(0)


def _become_kernel(request: dict[str, Any]) -> NoReturn:
    """Run ipykernel until killed."""
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(
        argv=[
            f"--IPKernelApp.connection_file={request['connection_file']}",
            "--HistoryManager.enabled=False",
            "--IPCompleter.use_jedi=False",
            "--no-secure",
        ]
    )
    os._exit(0)


def main() -> None:
    """Serve fork requests until stdin is closed."""
    _die_with_parent()
    backend = sys.argv[1]
    warm_up(backend, Path(sys.argv[2]))
    if backend == "fork":
        from code_sandbox.server import worker

        worker.build_shell()
    network_can_be_cut = _network_can_be_cut()
    # A child's exit is seen by the server through its pidfd; nobody waits for the status here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    requests, replies = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    reply({"ready": True, "network_can_be_cut": network_can_be_cut})
    for line in requests:
        try:
            pid = os.fork()
        except OSError as error:
            reply({"error": f"fork failed: {error}"})
            continue
        if pid == 0:
            try:
                request = json.loads(line)
                _prepare_child(request)
                if backend == "fork":
                    _become_session(request)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _become_kernel(request)
            finally:
                os._exit(1)
        reply({"pid": pid})


if __name__ == "__main__":
    main()
