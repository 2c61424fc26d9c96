"""The server's side of a `fork` session: start, run a cell, kill. Same interface as `kernels.Kernel`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import msgpack

from code_sandbox.server.kernels import CellOutput, KernelLimits, KernelStartFailed, ProcessWatch, Zygote

_LENGTH = struct.Struct(">I")
_MAX_REPLY_BYTES = 512 << 20


class ForkedKernel(ProcessWatch):
    """One forked IPython and the socket to it."""

    def __init__(self, directory: Path, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(directory, pid)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, zygote: Zygote, *, root: Path, limits: KernelLimits) -> ForkedKernel:
        """Fork a session and wait until it has connected.

        Raises:
            KernelStartFailed: It ended, or did not connect within its time.
        """
        directory = Path(tempfile.mkdtemp(prefix="k", dir=root))
        connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result((reader, writer))

        listener = await asyncio.start_unix_server(accept, str(directory / "s"))
        pid = 0
        try:
            pid = await zygote.fork(
                {
                    "socket": str(directory / "s"),
                    "directory": str(directory),
                    "memory_limit_bytes": limits.memory_bytes,
                    "file_limit_bytes": limits.file_bytes,
                }
            )
            async with asyncio.timeout(limits.start_timeout_s):
                reader, writer = await connected
            return cls(directory, pid, reader, writer)
        except BaseException as error:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(directory, ignore_errors=True)
            if not isinstance(error, TimeoutError | ProcessLookupError):
                raise
            raise KernelStartFailed(f"the session did not connect within {limits.start_timeout_s:g} s") from error
        finally:
            listener.close()

    async def execute(
        self, code: str, *, timeout_s: float, interrupt_grace_s: float, max_chars: int, silent: bool = False
    ) -> CellOutput:
        """Run one cell to its end, its time-out, or the session's death."""
        output = CellOutput()
        started = time.monotonic()
        body = msgpack.packb({"code": code, "silent": silent, "max_chars": max_chars}, unicode_errors="replace")
        receiver = asyncio.ensure_future(self._exchange(body))
        try:
            done, _ = await asyncio.wait({receiver}, timeout=timeout_s)
            if not done:
                output.status = "timeout"
                self.signal(signal.SIGINT)
                done, _ = await asyncio.wait({receiver}, timeout=interrupt_grace_s)
            if not done:
                output.state_lost = True
            else:
                self._fill(output, receiver)
        finally:
            receiver.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await receiver
            output.execution_time_s = time.monotonic() - started
        if output.state_lost:
            await self.kill()
        return output

    async def _exchange(self, body: bytes) -> dict[str, Any]:
        self._writer.write(_LENGTH.pack(len(body)) + body)
        await self._writer.drain()
        (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        if length > _MAX_REPLY_BYTES:
            raise OSError(f"a reply of {length:,} bytes")
        reply: dict[str, Any] = msgpack.unpackb(await self._reader.readexactly(length))
        return reply

    @staticmethod
    def _fill(output: CellOutput, receiver: asyncio.Future[dict[str, Any]]) -> None:
        try:
            reply = receiver.result()
        except (asyncio.IncompleteReadError, OSError, ValueError):
            # The socket closed in the middle of a cell: the process is gone.
            if output.status != "timeout":
                output.status = "killed"
            output.state_lost = True
            return
        output.stdout, output.stderr, output.result = [reply["stdout"]], [reply["stderr"]], reply["result"]
        output.images = [(mime, base64.b64encode(data).decode()) for mime, data in reply["images"]]
        if output.status != "timeout":
            output.status = reply["status"]
            if reply["error"] is not None:
                name, message, traceback = reply["error"]
                output.error = (name, message, traceback)

    async def kill(self) -> None:
        """Kill the session's whole process group and remove its directory. Safe to call twice."""
        self._writer.close()
        await self.end()


__all__ = ["ForkedKernel"]
