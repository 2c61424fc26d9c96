"""The server's side of a `fork` session: start, open, run a cell, kill. Same interface as `kernels.JupyterKernel`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from code_sandbox.errors import BadImage, KernelStartFailed
from code_sandbox.server.cells import Cell, CellClock, CellOutput
from code_sandbox.server.confinement import LENGTH
from code_sandbox.server.packed import unpacked
from code_sandbox.server.session_process import SessionProcess, make_directory
from code_sandbox.server.zygote_client import Zygote

_CHUNK_BYTES = 1 << 16
_MAX_REPLY_BYTES = 256 << 20
_MAX_SHOWN_BYTES = 128 << 20
"""All images of a cell together. What is above is left out in the session, which says so."""
_LARGE_BYTES = 1 << 20
"""A reply of more is decoded beside the event loop."""
_MOST_NESTED = 200
"""Lists and maps of a reply, and entries of one: 64 images are pairs."""
_NOTES_CHARS = 100_000
_MOST_IMAGES = 1_000_000
"""That a cell can claim to have shown."""


class ForkedKernel:
    """One forked IPython and the socket to it."""

    def __init__(self, process: SessionProcess, connection: socket.socket) -> None:
        self.process = process
        self._connection = connection
        self._received = bytearray()

    @property
    def exited(self) -> asyncio.Event:
        """Set when the process is gone."""
        return self.process.exited

    @classmethod
    async def start(cls, zygote: Zygote, *, root: Path, timeout_s: float) -> ForkedKernel:
        """Fork a session and wait until it is confined and ready.

        Raises:
            KernelStartFailed: It ended, or was not ready within `timeout_s` seconds.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        directory = None if zygote.layers.namespaces else make_directory(root)
        try:
            process = await zygote.fork(connection=theirs, directory=directory)
        except BaseException:
            ours.close()
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        kernel = cls(process, ours)
        try:
            async with asyncio.timeout(timeout_s):
                first = await kernel._receive()
        except BaseException as error:
            await kernel.kill()
            if isinstance(error, TimeoutError | OSError):
                raise KernelStartFailed(f"a session ended, or was not ready within {timeout_s:g} s: {error}") from error
            raise
        if "failed" in first:
            await kernel.kill()
            raise KernelStartFailed(f"a session could not be confined: {first['failed']}")
        return kernel

    async def open(self, descriptors: Sequence[int], *, seed: int, timeout_s: float) -> None:
        """Give the session its images and its random numbers.

        Raises:
            KernelStartFailed: It is gone, or does not answer.
            BadImage: One is not readable.
        """
        message, nonce = self._pack({"seed": seed, "images": len(descriptors)})
        try:
            # Small enough for the socket's empty buffer.
            socket.send_fds(self._connection, [message], list(descriptors))
            async with asyncio.timeout(timeout_s):
                reply = await self._reply(nonce)
        except (OSError, ValueError) as error:
            await self.kill()
            raise KernelStartFailed(f"the session did not open: {error}") from error
        if "unreadable" in reply:
            await self.kill()
            raise BadImage(str(reply["unreadable"]))

    async def execute(self, cell: Cell) -> CellOutput:
        """Run one cell to its end, its time-out, or the session's death."""
        output = CellOutput()
        clock = CellClock()
        message, nonce = self._pack(
            {
                "code": cell.code,
                "silent": cell.silent,
                "max_chars": cell.max_chars,
                "max_images": cell.max_images,
                "max_bytes": _MAX_SHOWN_BYTES,
                "max_pixels": cell.max_pixels,
                "mime": cell.mime,
            }
        )
        receiver = asyncio.ensure_future(self._exchange(message, nonce))
        try:
            if not await clock.wait_for_any({receiver}, cell.timeout_s):
                output.status = "timeout"
                interrupt = partial(self.process.signal, signal.SIGINT)
                await clock.wait_interrupting({receiver}, interrupt, cell.interrupt_grace_s)
            if not receiver.done():
                output.state_lost = True
            else:
                self._fill(output, receiver, cell.max_chars)
                output.lost_by_us = isinstance(receiver.exception(), OSError) and await self.process.was_lost()
        finally:
            receiver.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await receiver
            output.execution_time_s = clock.spent_s
        if output.state_lost:
            await self.kill()
        return output

    @staticmethod
    def _pack(message: dict[str, Any]) -> tuple[bytes, str]:
        nonce = secrets.token_hex(8)
        body = msgpack.packb(message | {"nonce": nonce}, unicode_errors="replace")
        return LENGTH.pack(len(body)) + body, nonce

    async def _exchange(self, message: bytes, nonce: str) -> dict[str, Any]:
        await asyncio.get_running_loop().sock_sendall(self._connection, message)
        return await self._reply(nonce)

    async def _reply(self, nonce: str) -> dict[str, Any]:
        reply = await self._receive()
        if reply.get("nonce") != nonce:
            raise ValueError("the session wrote to the server's socket itself")
        return reply

    async def _receive(self) -> dict[str, Any]:
        """One message.

        Raises:
            OSError: The session is gone.
            ValueError: What it sent is no message.
        """
        await self._read(LENGTH.size)
        (length,) = LENGTH.unpack(self._take(LENGTH.size))
        if length > _MAX_REPLY_BYTES:
            raise ValueError(f"a reply of {length:,} bytes")
        await self._read(length)
        body = self._take(length)
        if length > _LARGE_BYTES:
            message = await asyncio.to_thread(_unpacked, body)
        else:
            message = _unpacked(body)
        if not isinstance(message, dict):
            raise ValueError("a message that is no map")
        return message

    async def _read(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        while len(self._received) < count:
            wanted = min(_LARGE_BYTES, max(_CHUNK_BYTES, count - len(self._received)))
            part = await loop.sock_recv(self._connection, wanted)
            if not part:
                raise ConnectionResetError("the session hung up")
            self._received += part

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    @staticmethod
    def _fill(output: CellOutput, receiver: asyncio.Future[dict[str, Any]], max_chars: int) -> None:
        reply = None if receiver.exception() is not None else receiver.result()
        if reply is None or not _is_of_the_right_form(reply, max_chars):
            # The socket closed in the middle of a cell: the process is gone. Or the cell wrote to it, and nothing that
            # comes from there means anything any more.
            if output.status != "timeout":
                output.status = "killed"
            output.state_lost = True
            return
        output.stdout, output.stderr, output.result = [reply["stdout"]], [reply["stderr"]], reply["result"]
        output.images, output.more_images = [(mime, data) for mime, data in reply["images"]], reply["more_images"]
        if output.status != "timeout":
            output.status = reply["status"]
            output.error = None if reply["error"] is None else tuple(reply["error"])

    async def kill(self) -> None:
        """Kill the session with everything it started. Safe to call twice."""
        self._connection.close()
        await self.process.end()


def _unpacked(body: bytes) -> Any:
    return unpacked(body, most_nested=_MOST_NESTED, longest=_MOST_NESTED)


def _is_of_the_right_form(reply: dict[str, Any], max_chars: int) -> bool:
    """Whether a reply has the fields that worker.py sends, of their types and sizes: looked at, and nothing converted."""
    error, images, more = reply.get("error"), reply.get("images"), reply.get("more_images")
    texts = [reply.get(name) for name in ("stdout", "stderr", "result")]
    # Both ends of what was printed, and what was written past Python; notes and their number.
    longest = 4 * (max_chars + 1) + _NOTES_CHARS
    return (
        all(isinstance(text, str) and len(text) <= longest for text in texts)
        and reply.get("status") in ("ok", "error")
        and (error is None or _is_list_of(error, str, str, str))
        and isinstance(images, list)
        and all(_is_list_of(image, str, bytes) for image in images)
        and type(more) is int
        and 0 <= more <= _MOST_IMAGES
    )


def _is_list_of(value: Any, *types: type) -> bool:
    return isinstance(value, list) and tuple(type(part) for part in value) == types
