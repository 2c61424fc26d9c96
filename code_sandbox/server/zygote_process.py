"""A warm Python process that forks one session per request.

Importing IPython and the libraries that cells use takes seconds of CPU; a fork of a process that has already imported
them takes milliseconds, and its memory is shared until written. With the back-end `jupyter` every fork becomes a real
ipykernel that speaks the Jupyter protocol; with `fork` it runs cells itself (worker.py).

Protocol, over a SOCK_SEQPACKET Unix socket that is inherited as descriptor CONTROL: the server sends
`{"number": int, "session": {...}}` (the fields of `confinement.SessionRequest`) with one end of a socket pair and one of a
pipe attached (see `Confinement.fork_session`), and gets `{"number": int, "pid": int}` with a pidfd attached (unless the
session has ended by then), or
`{"number": int, "error": str}`.
The first message is `{"ready": true, "layers": {...}, "threads": int, "address_space_bytes": int}`. When the server hangs
up, the process ends, its sessions with it.

    python -m code_sandbox.server.zygote_process CONTROL BACKEND SERVER_ROOT UID_BASE WITHOUT CGROUPS

WITHOUT: layers to leave out, comma-separated. CGROUPS: directories, separated by colons.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack

from code_sandbox.server import linux
from code_sandbox.server.confinement import LENGTH, OUTPUT, SESSION_SOCKET, Confinement, SessionRequest

_MAX_MESSAGE_BYTES = 1 << 16

# What a kernel imports when it starts; found by comparing sys.modules before and after.
_KERNEL = (
    "code_sandbox.server.kernel_messages",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "tornado.locks",
    "tornado.platform.asyncio",
    "tornado.queues",
)
_SESSION = ("code_sandbox.server.worker",)
_COMMON = (
    "nest_asyncio2",
    "code_sandbox.server.display",
    "code_sandbox.server.notebook",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "base64", "collections", "colorsys", "csv", "itertools", "json", "math", "random", "re", "statistics", "subprocess",
    "matplotlib.pyplot", "matplotlib.patches",
    "numpy.random", "cv2", "pandas", "sympy",
    "scipy.ndimage", "scipy.optimize", "scipy.signal", "scipy.spatial", "scipy.stats",
    "skimage.color", "skimage.exposure", "skimage.feature", "skimage.filters", "skimage.io", "skimage.measure",
    "skimage.morphology", "skimage.segmentation", "skimage.transform",
)  # fmt: skip
_PILLOW = (
    "ImageChops", "ImageColor", "ImageDraw", "ImageEnhance", "ImageFilter", "ImageFont", "ImageOps", "ImageStat",
)  # fmt: skip


def warm_up(backend: str) -> None:
    """Import what most cells use, and draw once so that the font cache is filled before any fork."""
    os.environ.update(MPLBACKEND="module://matplotlib_inline.backend_inline")
    # Without debugpy a kernel starts in half the time; it is only for attaching a debugger.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    pillow = tuple(f"PIL.{name}" for name in _PILLOW)
    for module in (*_COMMON, *pillow, *(_KERNEL if backend == "jupyter" else _SESSION)):
        importlib.import_module(module)
    import cv2
    import PIL.Image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Its threads would not survive the fork.
    cv2.setNumThreads(0)
    PIL.Image.init()
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.add_subplot().set_title("warm")
    with open(os.devnull, "wb") as sink:
        figure.savefig(sink, format="png")


def _become_session(backend: str, request: SessionRequest) -> NoReturn:
    """Turn this process into the confined worker of a new session."""
    # A program of the model that parses its arguments finds none.
    sys.argv = [""]
    if backend == "fork":
        from code_sandbox.server import worker

        with socket.socket(fileno=SESSION_SOCKET) as connection:
            worker.serve(worker.CellShell.instance(), connection, output=OUTPUT)
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ipykernel.kernelapp import IPKernelApp

    # IPython copies this file where it is not there, with its mode, and without namespaces no session may set one.
    startup = os.path.join(os.environ["IPYTHONDIR"], "profile_default", "startup")
    os.makedirs(startup, exist_ok=True)
    with open(os.path.join(startup, "README"), "w"):
        pass
    IPKernelApp.launch_instance(
        argv=[
            f"--IPKernelApp.connection_file={request.connection_file}",
            "--HistoryManager.enabled=False",
            "--IPCompleter.use_jedi=False",
            "--no-secure",
        ]
    )
    os._exit(0)


def _fork(backend: str, confinement: Confinement, message: dict[str, Any], connection: int, last_word: int) -> int:
    zygote = os.getpid()
    try:
        request = SessionRequest(**message)
        pid = confinement.fork_session(request, connection, last_word)
        if pid == 0:
            confinement.use_own_tmp(request)
            _become_session(backend, request)
    except BaseException as error:
        if os.getpid() == zygote:
            raise
        # In the session: say why to whoever waits for it.
        packed = msgpack.packb({"failed": f"{type(error).__name__}: {error}"})
        os.write(SESSION_SOCKET, LENGTH.pack(len(packed)) + packed)
        os._exit(1)
    return pid


def _answer(send: Callable[..., None], message: dict[str, Any]) -> None:
    """Hand the session over by a descriptor, which no other process can come to stand behind."""
    try:
        pidfd = os.pidfd_open(message["pid"])
    except ProcessLookupError:
        send(message)
        return
    send(message, pidfd)
    os.close(pidfd)


def main() -> None:
    """Serve fork requests until the server hangs up."""
    linux.die_with_parent()
    control_fd, backend, root, uid_base, without, groups = sys.argv[1:]
    warm_up(backend)
    if backend == "fork":
        from code_sandbox.server import worker

        worker.build_shell()
    confinement = Confinement(
        root,
        uid_base=int(uid_base),
        without=[name for name in without.split(",") if name],
        groups=[path for path in groups.split(":") if path],
    )
    # A child's exit is seen by the server through its pidfd; nobody waits for the status here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(control_fd)) as control:

        def send(message: dict[str, Any], *descriptors: int) -> None:
            socket.send_fds(control, [json.dumps(message).encode()], descriptors)

        threads = len(os.listdir("/proc/self/task"))
        with open("/proc/self/statm") as pages:
            size = int(pages.read().split()[0]) * resource.getpagesize()
        layers = confinement.layers.as_dict()
        send({"ready": True, "layers": layers, "threads": threads, "address_space_bytes": size})
        while True:
            try:
                body, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 2)
            except ConnectionError:
                return
            if not body:
                return
            message = json.loads(body)
            number = {"number": message["number"]}
            try:
                pid = _fork(backend, confinement, message["session"], *descriptors)
            except OSError as error:
                send(number | {"error": f"fork failed: {error}"})
            else:
                _answer(send, number | {"pid": pid})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)


if __name__ == "__main__":
    main()
