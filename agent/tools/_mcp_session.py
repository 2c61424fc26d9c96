"""A session with an MCP server, through the official library; bounded in time and bytes, whatever the server does.

Connections of that library belong to the task that opened them, so each has a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio
from mcp.client import Client, InputRequiredRoundsExceededError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult
from mcp_types import Tool as ListedTool
from pydantic import ValidationError

from agent.errors import ToolError, ToolUnavailable
from agent.settings import McpServer
from agent.tools._mcp_transports import Traffic, over_http, over_program
from code_sandbox.redaction import HIDDEN, redacted

T = TypeVar("T")
_MAX_PAGES = 100
_END_S = 10.0
_LEAST_SECRET_CHARS = 8
_BROKEN = (
    MCPError, InputRequiredRoundsExceededError, ValidationError, RuntimeError, OSError, ExceptionGroup,
    anyio.BrokenResourceError, anyio.ClosedResourceError,
)  # fmt: skip
"""What the library raises when a server is gone or talks nonsense."""


class McpSession:
    """One session with a server, opened at the first call."""

    def __init__(self, name: str, server: McpServer) -> None:
        self._name = name
        self._server = server
        self._env = {variable: _from_environment(variable, f"mcp.{name}.env") for variable in server.env}
        self._headers = {header.name: _from_environment(header.variable, f"mcp.{name}.headers") for header in server.headers}
        self._secrets = _every_form(*self._env.values(), *self._headers.values())
        self._link: _Link | None = None

    def without_secrets(self, text: str) -> str:
        """What a server says, without the values that we sent it."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    async def call(self, tool: str, arguments: Mapping[str, Any], *, schema: Mapping[str, Any]) -> CallToolResult:
        """Call one of the server's tools.

        Args:
            tool: By the server's own name.
            arguments: As the model wrote them.
            schema: Of the arguments, as the prompt lists it.

        Raises:
            ToolError: The server refuses the arguments, or the result is larger than allowed.
            ToolUnavailable: The server is away, takes too long, talks nonsense, or has not the tool that the prompt lists.
        """
        if self._link is None:
            await self._open()
            await self._expect(tool, schema)
        try:
            result = await self._bounded(
                lambda client: client.call_tool(tool, dict(arguments)), f"answer a call of {tool}", tool
            )
        except ToolError:
            await self._expect(tool, schema)  # a tool that is gone is not the model's mistake
            raise
        if result.is_error:
            await self._expect(tool, schema)  # it may say so in a result, too
        return result

    async def tools(self) -> list[ListedTool]:
        """What the server has, all pages.

        Raises:
            ToolUnavailable: As of `call`.
        """
        if self._link is None:
            await self._open()

        async def pages(client: Client) -> list[ListedTool]:
            found: list[ListedTool] = []
            cursor: str | None = None
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
            return found

        return await self._bounded(pages, "list its tools")

    async def aclose(self) -> None:
        """End the session and, if it was started for it, the server."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _open(self) -> None:
        self._link = _Link(self._transport)
        await self._bounded(_nothing, "open a session")

    async def _expect(self, tool: str, schema: Mapping[str, Any]) -> None:
        there = {found.name: found.input_schema for found in await self.tools()}
        if there.get(tool) != schema:
            what = "changed the arguments of" if tool in there else "no longer has"
            await self.aclose()
            raise ToolUnavailable(
                f"the MCP server {self._name!r} {what} {tool!r}, which the prompt still lists as it was; start this "
                "program again"
            )

    async def _bounded(self, ask: Callable[[Client], Awaitable[T]], what: str, tool: str = "") -> T:
        link = self._link
        assert link is not None
        link.traffic.too_large = False
        try:
            async with asyncio.timeout(self._server.call_timeout_s):
                return await ask(await link.opened())
        except TimeoutError:
            problem = f"did not {what} in {self._server.call_timeout_s:g} s (mcp.{self._name}.call_timeout_s)"
        except _BROKEN as error:
            if link.traffic.too_large and tool:
                raise ToolError(
                    f"the result of {tool} has more than {self._server.max_result_bytes:,} bytes; ask for less"
                ) from None
            if isinstance(error, MCPError) and error.code == INVALID_PARAMS and tool:
                raise ToolError(f"Invalid tool call parameters: {self.without_secrets(error.message)}") from None
            problem = f"did not {what}: {await link.reason(error)}"
        await self.aclose()
        raise ToolUnavailable(redacted(f"the MCP server {self._name!r} {problem}", *self._secrets))

    def _transport(self, traffic: Traffic) -> AbstractAsyncContextManager[Any]:
        if self._server.url is None:
            return over_program(self._server, self._env, traffic)
        return over_http(self._server, self._headers, traffic)


async def list_tools(name: str, server: McpServer) -> list[ListedTool]:
    """What a server has, in a session of its own.

    Raises:
        ToolUnavailable: It is away, takes too long or talks nonsense.
        ValueError: A variable of the environment that it needs is not set.
    """
    session = McpSession(name, server)
    try:
        return await session.tools()
    finally:
        await session.aclose()


class _Link:
    """The task that a connection of the library lives in."""

    def __init__(self, transport: Callable[[Traffic], AbstractAsyncContextManager[Any]]) -> None:
        self.traffic = Traffic()
        self._transport = transport
        self._closing = asyncio.Event()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live())

    async def opened(self) -> Client:
        """The connection, when it is open.

        Raises:
            ConnectionError: It could not be opened.
        """
        return await asyncio.shield(self._opened)

    async def reason(self, error: BaseException) -> str:
        """Why it broke: the library tells the caller that it is closed, and the task what closed it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.wait({self._task})
        if self._task.done() and not self._task.cancelled() and (found := self._task.exception()) is not None:
            error = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = self.traffic.stderr.decode("utf-8", "replace").strip()
        return f"{type(error).__name__}: {error}" + (f"; it said: …{said}" if said else "")

    async def aclose(self) -> None:
        """Leave it in its own task; what is not open yet, or does not end, is cancelled."""
        self._closing.set()
        if self._opened.done():
            await asyncio.wait({self._task}, timeout=_END_S)
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_END_S)
        for ended in (self._task, self._opened):
            if ended.done() and not ended.cancelled():
                ended.exception()  # was told as the reason, or came of closing

    async def _live(self) -> None:
        try:
            async with Client(self._transport(self.traffic), cache=None) as client:
                self._opened.set_result(client)
                await self._closing.wait()
        finally:
            if not self._opened.done():
                self._opened.set_exception(ConnectionError("it could not be opened"))


async def _nothing(_: Client) -> None:
    """What is asked of a connection that should only be opened."""


def _from_environment(variable: str, what: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ValueError(f"{what} names the variable {variable}, which is not set: set it")
    return value


def _every_form(*values: str) -> tuple[str, ...]:
    """Values, and of `Bearer …` and its like the part behind the word; what is short stands in other words too."""
    parts = (part for value in values for part in (value, value.partition(" ")[2]))
    return tuple(sorted({part for part in parts if len(part) >= _LEAST_SECRET_CHARS}, key=len, reverse=True))
