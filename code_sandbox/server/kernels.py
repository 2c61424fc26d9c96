"""One Jupyter kernel: start, run a cell, interrupt, kill. The only module that imports jupyter_client.

Kernels come from the zygote (`zygote.py`), talk over ipc sockets in a directory that they share with the server (no TCP
port that another cell could reach) and are watched through a pidfd, so a death is seen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.connect import write_connection_file
from traitlets import Type
from zmq.constants import SocketOption

from code_sandbox.errors import BadImage, KernelStartFailed
from code_sandbox.server.cells import Cell, CellClock, CellOutput
from code_sandbox.server.kernel_messages import MAX_MESSAGE_BYTES, MAX_PARTS, TooMuch, check_parts, image_of, unpacked
from code_sandbox.server.notebook import BoundedText, is_object, shown_text
from code_sandbox.server.session_process import SessionProcess, make_directory
from code_sandbox.server.view import INNER_DIRECTORY
from code_sandbox.server.zygote_client import Zygote

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_POLL_S = 0.002
_MAX_SOCKETS = 65_535
_MAX_WAITING_MESSAGES = 16
_LARGE_BYTES = 1 << 18
_OPEN = """\
import random as _r, numpy as _n, nest_asyncio2 as _l
from code_sandbox.pictures import opened as _o, upright_rgb as _u
from code_sandbox.server.display import FIGURE_OPTIONS as _f, ImageEncoder as _e
from code_sandbox.server.kernel_messages import keep_to_bounds as _b
from code_sandbox.server.notebook import complete_streams as _c, install as _i, live_with_forks as _p
_r.seed({seed}); _n.random.seed({seed} % 2**32)
get_ipython().config.InlineBackend.print_figure_kwargs = _f
_encoder = _e(); _encoder.install(get_ipython()); _i(get_ipython()); _c(); _p(get_ipython())
_b(get_ipython().kernel); _l.apply()
{lines}
del _r, _n, _o, _u, _f, _e, _i, _c, _p, _b, _l"""
_ENCODING = "_encoder.max_pixels, _encoder.mime = {max_pixels}, {mime!r}"


def new_context() -> zmq.asyncio.Context:
    """A context for the sockets of all kernels; what a kernel sends waits in the kernel, not here."""
    context = zmq.asyncio.Context()
    context.max_sockets = _MAX_SOCKETS
    context.setsockopt(SocketOption.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    context.setsockopt(SocketOption.RCVHWM, _MAX_WAITING_MESSAGES)
    return context


class _BoundedChannel(AsyncZMQSocketChannel):
    """Reads a message part by part and a large one in a thread, so that no message stops anybody."""

    async def _recv(self, **options: Any) -> dict[str, Any]:
        parts = [await self.socket.recv(copy=False, **options)]
        while self.socket.getsockopt(SocketOption.RCVMORE):
            parts.append(await self.socket.recv(copy=False, **options))
            if len(parts) > MAX_PARTS or sum(map(len, parts)) > MAX_MESSAGE_BYTES:
                raise TooMuch(f"a message has more than {MAX_PARTS} parts or {MAX_MESSAGE_BYTES:,} bytes")
        if sum(map(len, parts)) > _LARGE_BYTES:
            return await asyncio.to_thread(self._read, parts)
        return self._read(parts)

    def _read(self, frames: Sequence[Any]) -> dict[str, Any]:
        parts = self.session.feed_identities([frame.bytes for frame in frames])[1]
        check_parts(parts)
        message: dict[str, Any] = self.session.deserialize(parts)
        return message


class _BoundedClient(AsyncKernelClient):
    iopub_channel_class = Type(_BoundedChannel)
    shell_channel_class = Type(_BoundedChannel)
    control_channel_class = Type(_BoundedChannel)


class JupyterKernel:
    """One live Jupyter kernel and its client."""

    def __init__(self, process: SessionProcess, client: _BoundedClient, inner: str) -> None:
        self.process = process
        self._client = client
        self._inner = inner
        self._encoding: tuple[int, str] | None = None

    @property
    def exited(self) -> asyncio.Event:
        """Set when the process is gone."""
        return self.process.exited

    @classmethod
    async def start(cls, zygote: Zygote, context: zmq.asyncio.Context, *, root: Path, timeout_s: float) -> JupyterKernel:
        """Fork a kernel and wait until it answers.

        Raises:
            KernelStartFailed: It ended, or did not answer within `timeout_s` seconds.
        """
        directory = make_directory(root)
        kernel: JupyterKernel | None = None
        try:
            # A kernel sees the directory under another name when it has a root file system of its own.
            inner = INNER_DIRECTORY if zygote.layers.namespaces else str(directory)
            path, info = write_connection_file(
                str(directory / "connection.json"), transport="ipc", ip=f"{inner}/s", key=secrets.token_hex(16).encode()
            )
            Path(path).chmod(0o644)
            ours, theirs = socket.socketpair()
            with ours:
                process = await zygote.fork(
                    connection=theirs, directory=directory, connection_file=f"{inner}/connection.json"
                )
            client = _BoundedClient(context=context)
            client.session.unpack = unpacked
            client.load_connection_info(json.loads(Path(path).read_text()) | {"ip": str(directory / "s")})
            kernel = cls(process, client, inner)
            sockets = [directory / f"s-{info[port]}" for port in ("shell_port", "iopub_port")]
            async with asyncio.timeout(timeout_s):
                await kernel._connect(sockets)
        except BaseException as error:
            if kernel is not None:
                await kernel.kill()
            else:
                shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, TimeoutError | Empty):
                raise KernelStartFailed(f"the kernel did not answer within {timeout_s:g} s") from error
            raise
        return kernel

    async def _connect(self, sockets: list[Path]) -> None:
        # Connecting before the kernel has bound costs a 100 ms reconnect of ZeroMQ's; the files appear within 30 ms.
        while not all(path.exists() for path in sockets):
            if self.exited.is_set():
                raise KernelStartFailed("the kernel ended while starting")
            await asyncio.sleep(_POLL_S)
        self._client.start_channels(hb=False, stdin=False)
        while True:
            message_id = self._client.kernel_info()
            await self._client.get_shell_msg(timeout=10)
            # iopub is subscribed when its first message arrives; before that, output could be missed.
            with contextlib.suppress(Empty):
                while True:
                    message = await self._client.get_iopub_msg(timeout=0.2)
                    if message["parent_header"].get("msg_id") == message_id:
                        return

    async def open(self, descriptors: Sequence[int], *, seed: int, timeout_s: float) -> None:
        """Give the session its images and its random numbers.

        Raises:
            KernelStartFailed: It is gone, or does not answer.
            BadImage: An image could not be loaded.
        """
        assert self.process.directory is not None
        lines = []
        for number, descriptor in enumerate(descriptors, start=1):
            name = f"image_{number}"
            await asyncio.to_thread(_copy, descriptor, self.process.directory / name)
            lines.append(f"image_{number} = _u(_o(open({self._inner + '/' + name!r}, 'rb')))")
        code = _OPEN.format(seed=seed, lines="\n".join(lines))
        output = await self.execute(Cell(code, timeout_s=timeout_s, max_chars=1000, silent=True))
        if output.status != "ok":
            await self.kill()
            if output.error:
                raise BadImage(output.error[1])
            raise KernelStartFailed(f"the session did not open: {output.status}")

    async def execute(self, cell: Cell) -> CellOutput:
        """Run one cell to its end, its time-out, or the kernel's death."""
        if not cell.silent and (cell.max_pixels, cell.mime) != self._encoding:
            self._encoding = (cell.max_pixels, cell.mime)
            code = _ENCODING.format(max_pixels=cell.max_pixels, mime=cell.mime)
            prepared = await self._run(Cell(code, timeout_s=cell.timeout_s, max_chars=0, silent=True))
            if prepared.state_lost:
                return prepared
        return await self._run(cell)

    async def _run(self, cell: Cell) -> CellOutput:
        output = CellOutput()
        clock = CellClock()
        message_id = self._client.execute(cell.code, silent=cell.silent, store_history=not cell.silent, allow_stdin=False)
        collector = asyncio.ensure_future(self._collect(message_id, output, cell))
        exit_watch = asyncio.ensure_future(self.exited.wait())
        try:
            if not await clock.wait_for_any({collector, exit_watch}, cell.timeout_s):
                output.status = "timeout"
                interrupt = partial(self.process.signal, signal.SIGINT)
                await clock.wait_interrupting({collector, exit_watch}, interrupt, cell.interrupt_grace_s)
                output.state_lost = not collector.done()
            elif not collector.done():
                output.status, output.state_lost = "killed", True
            if collector.done() and collector.exception() is not None:
                # The cell wrote to the kernel's sockets: nothing that comes from there means anything any more.
                output.state_lost = True
                if output.status != "timeout":
                    output.status = "killed"
            output.lost_by_us = exit_watch.done() and not collector.done() and await self.process.was_lost()
        finally:
            for task in (collector, exit_watch):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            output.execution_time_s = clock.spent_s
        if output.state_lost:
            await self.kill()
        return output

    async def _collect(self, message_id: str, output: CellOutput, cell: Cell) -> None:
        # One character more than allowed is kept, so that the bound later sees that something was cut.
        kept = {name: BoundedText(cell.max_chars + 1) for name in ("stdout", "stderr")}
        try:
            await self._collect_into(kept, message_id, output, cell)
        finally:
            output.stdout, output.stderr = ([kept[name].text()] for name in ("stdout", "stderr"))

    async def _collect_into(self, kept: dict[str, BoundedText], message_id: str, output: CellOutput, cell: Cell) -> None:
        while True:
            try:
                message = await self._client.get_iopub_msg(timeout=60)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return
            if kind == "stream":
                kept[content["name"]].write(content["text"])
            elif kind in ("display_data", "execute_result"):
                data = content["data"]
                is_told = kind == "display_data" or is_object(data.get("text/plain", ""))
                if not _keep_image(output, message, cell.max_images) and is_told and (text := shown_text(data)):
                    kept["stdout"].write(f"{text}\n")
                if kind == "execute_result":
                    output.result = data.get("text/plain", "")[: cell.max_chars + 1]
            elif kind == "error" and output.status != "timeout":
                output.status = "error"
                traceback = _ANSI.sub("", "\n".join(content["traceback"]))
                output.error = (content["ename"], content["evalue"], traceback)

    async def kill(self) -> None:
        """Kill the kernel with everything it started. Safe to call twice."""
        self._client.stop_channels()
        await self.process.end()


def _copy(descriptor: int, path: Path) -> None:
    with open(descriptor, "rb", closefd=False) as source, path.open("wb") as target:
        source.seek(0)
        shutil.copyfileobj(source, target)
    path.chmod(0o644)


def _keep_image(output: CellOutput, message: Mapping[str, Any], max_images: int) -> bool:
    image = image_of(message)
    if image is not None and len(output.images) < max_images:
        output.images.append(image)
    elif image is not None:
        output.more_images += 1
    return image is not None
