"""What an MCP session is carried by: a program's standard input and output, or streamable HTTP; bounded in bytes.

A program is started here and not by the official library, which reads lines of any length.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest, jsonrpc_message_adapter

from agent.settings import McpServer
from code_sandbox.redaction import redact_requests_log

_EXIT_S = 2.0
_STREAM_S = 300.0
"""How long a server may be silent on the stream that it keeps open for what nobody asked for."""
_CHUNK_BYTES = 64 * 1024
_KEPT_STDERR_BYTES = 2000
_TOO_LARGE = -32099
"""A code of ours, of those that JSON-RPC leaves to implementations."""


class _ResultTooLarge(httpx2.SSEError, httpx2.StreamError):
    """A response ends early; of both families that the library expects there: it answers the call and goes on."""


@dataclass(slots=True)
class Traffic:
    """What a connection saw besides the protocol."""

    too_large: bool = False
    """Whether more was sent than is taken, since this was last set back."""
    stderr: bytearray = field(default_factory=bytearray)
    """The end of what a program said there."""


@asynccontextmanager
async def over_http(server: McpServer, headers: Mapping[str, str], traffic: Traffic) -> AsyncIterator[Any]:
    """Streamable HTTP; a response ends where it is longer than allowed."""

    async def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("the response is compressed, though none was asked for", request=response.request)
        response.stream = _BoundedStream(response.stream, server.max_result_bytes, traffic)

    redact_requests_log()
    logging.getLogger("mcp.client").setLevel(logging.CRITICAL)  # a broken response is told by our own error
    client = httpx2.AsyncClient(
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(server.call_timeout_s, read=max(server.call_timeout_s, _STREAM_S)),
        event_hooks={"response": [bound]},
    )
    assert server.url is not None
    async with client, streamable_http_client(server.url, http_client=client, max_sse_event_size=None) as streams:
        yield streams


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of a response, up to a number of bytes."""

    def __init__(self, body: Any, max_bytes: int, traffic: Traffic) -> None:
        self._body = body
        self._left_bytes = max_bytes
        self._traffic = traffic

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._left_bytes -= len(chunk)
            if self._left_bytes < 0:
                self._traffic.too_large = True
                raise _ResultTooLarge("the response is larger than allowed")
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()


@asynccontextmanager
async def over_program(server: McpServer, env: Mapping[str, str], traffic: Traffic) -> AsyncIterator[Any]:
    """A program's standard input and output, line by line; a line that is longer than allowed answers the call as an error.

    Args:
        server: Whose command it is.
        env: What the program gets besides PATH, HOME and the like.
        traffic: Is told of what was too large, and of what the program said on its standard error.

    Raises:
        OSError: The program cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *server.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**get_default_environment(), **env}, start_new_session=True,
    )  # fmt: skip
    pipes = _Pipes(process, server.max_result_bytes, traffic)
    tasks = [asyncio.create_task(_quietly(work)) for work in (pipes.read, pipes.write, pipes.listen)]
    try:
        yield pipes.from_server, pipes.to_server
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.shield(_stopped(process, tasks))


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await work()


class _Pipes:
    """Between a program's pipes and the library's streams."""

    def __init__(self, process: asyncio.subprocess.Process, max_bytes: int, traffic: Traffic) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._max_bytes = max_bytes
        self._traffic = traffic
        self._asked: Any = None
        self._received, self.from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.to_server, self._sent = anyio.create_memory_object_stream[SessionMessage](0)

    async def read(self) -> None:
        """What the program answers; the end of it closes the stream."""
        async with self._received:
            async for line in _lines(self._stdout, self._max_bytes):
                if line is None:
                    self._traffic.too_large = True
                    refusal = ErrorData(code=_TOO_LARGE, message="the result is larger than allowed")
                    await self._received.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=self._asked, error=refusal)))
                    continue
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    continue  # a banner, or nonsense; if it was meant as an answer, the call's time runs out
                await self._received.send(SessionMessage(message))

    async def write(self) -> None:
        """What we ask."""
        async with self._sent:
            async for sent in self._sent:
                if isinstance(sent.message, JSONRPCRequest):
                    self._asked = sent.message.id
                self._stdin.write(sent.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await self._stdin.drain()

    async def listen(self) -> None:
        """What the program says beside the protocol."""
        while chunk := await self._stderr.read(_CHUNK_BYTES):
            self._traffic.stderr += chunk
            del self._traffic.stderr[:-_KEPT_STDERR_BYTES]


async def _lines(stream: asyncio.StreamReader, max_bytes: int) -> AsyncIterator[bytes | None]:
    """Lines without their ends; None as soon as one is longer than allowed, of which nothing is kept."""
    line, is_long = bytearray(), False
    while chunk := await stream.read(_CHUNK_BYTES):
        parts = chunk.split(b"\n")
        for number, part in enumerate(parts):
            if not is_long:
                line += part
            if not is_long and len(line) > max_bytes:
                yield None
                is_long = True
                line.clear()
            if number < len(parts) - 1:
                if not is_long:
                    yield bytes(line)
                is_long = False
                line.clear()


async def _stopped(process: asyncio.subprocess.Process, tasks: list[asyncio.Task[None]]) -> None:
    """End a program as the protocol wants it: its input is closed, and it may go by itself; then with all that it began."""
    await asyncio.gather(*tasks, return_exceptions=True)
    assert process.stdin is not None
    process.stdin.close()
    assert process.stdout is not None
    assert process.stderr is not None
    # A program that waits until somebody reads what it wrote does not end.
    ended = asyncio.gather(_drained(process.stdout), _drained(process.stderr), process.wait())
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        if (await asyncio.wait({ended}, timeout=_EXIT_S))[0]:
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    ended.cancel()


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK_BYTES):
        pass
