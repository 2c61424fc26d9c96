"""One Jupyter kernel: start, run a cell, interrupt, kill. The only module that imports jupyter_client.

Kernels come from the zygote (`zygote.py`), talk over ipc sockets in their own directory (no TCP port that another
cell could reach) and are watched through a pidfd, so a death is seen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.connect import write_connection_file

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_POLL_S = 0.002


class KernelStartFailed(Exception):
    """A kernel did not come up."""


@dataclass(frozen=True, slots=True)
class KernelLimits:
    """Of one process."""

    memory_bytes: int
    """Address space."""
    file_bytes: int
    """Largest file it may write."""
    start_timeout_s: float


@dataclass(slots=True)
class CellOutput:
    """What a cell sent, not yet bounded or decoded."""

    status: str = "ok"
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    result: str = ""
    error: tuple[str, str, str] | None = None
    """(name, message, traceback)"""
    images: list[tuple[str, str]] = field(default_factory=list)
    """(mime, base64)"""
    state_lost: bool = False
    execution_time_s: float = 0.0


class Zygote:
    """The process that kernels are forked from. Restarted by the next start if it died."""

    def __init__(self, directory: Path, backend: str) -> None:
        self._directory = directory
        self._backend = backend
        self.network_can_be_cut = False
        """Whether sessions can be kept off the network here; known once started."""
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Start and wait until warm."""
        async with self._lock:
            await self._ensure()

    async def _ensure(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is not None and process.returncode is None:
            return process
        environment = {
            name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
        }
        # One thread each: a hundred kernels with a BLAS pool per core would starve the machine.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "code_sandbox.server.zygote",
            self._backend,
            str(self._directory / "matplotlib"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        assert process.stdout is not None
        first = await process.stdout.readline()
        if b"ready" not in first:
            raise KernelStartFailed(
                "the zygote ended before it was ready; run `python -m code_sandbox.server.zygote fork /tmp` to see why"
            )
        self.network_can_be_cut = bool(json.loads(first)["network_can_be_cut"])
        self._process = process
        return process

    async def fork(self, request: Mapping[str, Any]) -> int:
        """Fork one kernel and return its process id."""
        async with self._lock:
            process = await self._ensure()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                message = dict(request) | {"cut_network": self.network_can_be_cut}
                process.stdin.write((json.dumps(message) + "\n").encode())
                await process.stdin.drain()
                line = await process.stdout.readline()
            except OSError as error:
                raise KernelStartFailed(f"the kernel zygote ended: {error}") from error
            if not line:
                await process.wait()
                raise KernelStartFailed("the kernel zygote ended while forking; the next start makes a new one")
            reply = json.loads(line)
        if "error" in reply:
            raise KernelStartFailed(str(reply["error"]))
        return int(reply["pid"])

    async def stop(self) -> None:
        """End the zygote and all its kernels."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 2.0)
        except TimeoutError:
            process.kill()
            await process.wait()


class ProcessWatch:
    """A forked process and its directory: seen to exit at once through a pidfd, killed with all it started."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.directory = directory
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.exited.set()

    def signal(self, number: int) -> None:
        """Send a signal; to a process that is gone, nothing happens."""
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def end(self) -> None:
        """Kill the process group and remove the directory. Safe to call twice."""
        if self._pidfd < 0:
            return
        if not self.exited.is_set():
            # The process called setsid, so its group holds what it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), 5.0)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self.exited.set()
        await asyncio.to_thread(shutil.rmtree, self.directory, True)


class Kernel(ProcessWatch):
    """One live Jupyter kernel and its client."""

    def __init__(self, directory: Path, pid: int, client: AsyncKernelClient) -> None:
        super().__init__(directory, pid)
        self._client = client

    @classmethod
    async def start(
        cls,
        zygote: Zygote,
        context: zmq.asyncio.Context,
        *,
        root: Path,
        limits: KernelLimits,
    ) -> Kernel:
        """Fork a kernel and wait until it answers.

        Raises:
            KernelStartFailed: It ended, or did not answer within its time.
        """
        directory = Path(tempfile.mkdtemp(prefix="k", dir=root))
        kernel: Kernel | None = None
        try:
            connection_file, info = write_connection_file(
                str(directory / "connection.json"),
                transport="ipc",
                ip=str(directory / "s"),
                key=secrets.token_hex(16).encode(),
            )
            pid = await zygote.fork(
                {
                    "connection_file": connection_file,
                    "directory": str(directory),
                    "memory_limit_bytes": limits.memory_bytes,
                    "file_limit_bytes": limits.file_bytes,
                }
            )
            client = AsyncKernelClient(context=context)
            client.load_connection_file(connection_file)
            try:
                kernel = cls(directory, pid, client)
            except ProcessLookupError as error:
                raise KernelStartFailed(f"the kernel ended at once: {_tail(directory / 'kernel.log')}") from error
            sockets = [directory / f"s-{info[port]}" for port in ("shell_port", "iopub_port")]
            async with asyncio.timeout(limits.start_timeout_s):
                await kernel._connect(sockets)
        except TimeoutError as error:
            if kernel is not None:
                await kernel.kill()
            raise KernelStartFailed(f"the kernel did not answer within {limits.start_timeout_s:g} s") from error
        except BaseException:
            if kernel is not None:
                await kernel.kill()
            else:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        return kernel

    async def _connect(self, sockets: list[Path]) -> None:
        # Connecting before the kernel has bound costs a 100 ms reconnect of ZeroMQ's; the files appear within 30 ms.
        while not all(path.exists() for path in sockets):
            if self.exited.is_set():
                raise KernelStartFailed(f"the kernel ended while starting: {_tail(self.directory / 'kernel.log')}")
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

    async def execute(
        self, code: str, *, timeout_s: float, interrupt_grace_s: float, max_chars: int, silent: bool = False
    ) -> CellOutput:
        """Run one cell to its end, its time-out, or the kernel's death."""
        output = CellOutput()
        started = time.monotonic()
        message_id = self._client.execute(code, silent=silent, store_history=not silent, allow_stdin=False)
        collector = asyncio.ensure_future(self._collect(message_id, output, max_chars))
        exit_watch = asyncio.ensure_future(self.exited.wait())
        try:
            await asyncio.wait({collector, exit_watch}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not collector.done() and not exit_watch.done():
                output.status = "timeout"
                self.signal(signal.SIGINT)
                await asyncio.wait({collector, exit_watch}, timeout=interrupt_grace_s, return_when=asyncio.FIRST_COMPLETED)
                output.state_lost = not collector.done()
            elif not collector.done():
                output.status, output.state_lost = "killed", True
            if collector.done():
                collector.result()
        finally:
            for task in (collector, exit_watch):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            output.execution_time_s = time.monotonic() - started
        if output.state_lost:
            await self.kill()
        return output

    async def _collect(self, message_id: str, output: CellOutput, max_chars: int) -> None:
        kept = {"stdout": 0, "stderr": 0}
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
                name = content["name"]
                # One character more than allowed is kept, so that the bound later sees that something was cut.
                room = max_chars + 1 - kept[name]
                if room > 0:
                    getattr(output, name).append(content["text"][:room])
                    kept[name] += len(content["text"][:room])
            elif kind in ("display_data", "execute_result"):
                data = content["data"]
                for mime in ("image/png", "image/jpeg"):
                    if mime in data:
                        output.images.append((mime, data[mime]))
                        break
                if kind == "execute_result":
                    output.result = data.get("text/plain", "")[: max_chars + 1]
            elif kind == "error" and output.status != "timeout":
                output.status = "error"
                traceback = _ANSI.sub("", "\n".join(content["traceback"]))
                output.error = (content["ename"], content["evalue"], traceback)

    async def kill(self) -> None:
        """Kill the kernel's whole process group and remove its directory. Safe to call twice."""
        self._client.stop_channels()
        await self.end()


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-500:].strip() or "its log is empty"
    except OSError:
        return "it left no log"
