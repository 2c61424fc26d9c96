"""`mcp`: the tools of servers of the Model Context Protocol, each under its own name.

Not part of the published protocol; add it to a recipe's `tools`, and the servers as `mcp:`. What a server offers is read
once a process, for the prompt must say it. A session is opened at an episode's first call of a server and ends with the
episode: servers keep pages, files and variables in it, and episodes must not see each other's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import ToolError, ToolUnavailable
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, escape
from agent.protocol import render_tool_response
from agent.settings import AgentSettings, McpServer
from agent.tools import EpisodeState, Tool, ToolContext, ToolResult

if TYPE_CHECKING:
    from agent.tools._mcp_session import McpSession

_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_ERROR_CHARS = 200


@dataclass(frozen=True, slots=True)
class ServedTool:
    """A tool as its server described it when this process began."""

    name: str
    """The server's own."""
    description: str
    schema: Mapping[str, Any]
    """JSON schema of its arguments."""
    check: Any
    """A validator of `jsonschema` for it."""

    def problem(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with arguments; empty if nothing is, or if the schema points to what only the server knows."""
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            error = best_match(self.check.iter_errors(dict(arguments)))
        except Unresolvable:
            return ""
        if error is None:
            return ""
        place = ".".join(map(str, error.absolute_path))
        return f"`{place}`: {error.message}" if place else error.message


class McpTool:
    """One tool of a server, in the session of one episode."""

    def __init__(self, served: ServedTool, session: McpSession, state: EpisodeState) -> None:
        self._served = served
        self._session = session
        self._state = state

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Call it, if the arguments fit its schema."""
        if problem := self._served.problem(arguments):
            raise ToolError(f"Invalid tool call parameters: {problem}")
        result = await self._session.call(self._served.name, arguments, schema=self._served.schema)
        pieces = list(_pieces(result.content))
        if not pieces and result.structured_content is not None:
            pieces = [json.dumps(result.structured_content, ensure_ascii=False)]
        texts = [piece for piece in pieces if isinstance(piece, str)]
        images = [piece for piece in pieces if isinstance(piece, ImageFile)]
        content = "\n".join(
            escape(self._session.without_secrets(piece)) if isinstance(piece, str) else IMAGE_PLACEHOLDER for piece in pieces
        )
        error = ""
        if result.is_error:
            error = self._session.without_secrets(" ".join(texts))[:_ERROR_CHARS] or "the tool failed"
        return ToolResult(render_tool_response(content, images), error)

    async def close(self) -> None:
        """End the session, unless the conversation goes on with it; the server's other tools use the same."""
        if not self._state.keeps_sessions:
            await self._session.aclose()


def _pieces(content: list[Any]) -> Iterator[str | ImageFile]:
    """Texts and images in the order of a result; what is neither is named."""
    for block in content:
        what = block.resource if block.type == "resource" else block
        data, mime = getattr(what, "data", None) or getattr(what, "blob", None), getattr(what, "mime_type", None) or ""
        if isinstance(text := getattr(what, "text", None), str):
            yield text
        elif data is not None and mime.startswith("image/"):
            try:
                yield ImageFile(base64.b64decode(data, validate=True))
            except binascii.Error:
                yield "[an image was dropped: it is no base64]"
        elif block.type == "resource_link":
            yield f"[{block.name}]({block.uri})"
        else:
            yield f"[{mime or block.type} was left out: only text and images can be shown]"


def build(context: ToolContext) -> Mapping[str, Tool]:
    """Raises:
    ValueError: No server is given, or one cannot be had.
    """
    tools: dict[str, Tool] = {}
    for name, server in _servers(context.settings).items():
        served = _served_tools(name, server)
        from agent.tools._mcp_session import McpSession

        session = context.state.sessions.setdefault(name, McpSession(name, server))
        assert isinstance(session, McpSession)
        tools |= {called: McpTool(tool, session, context.state) for called, tool in served.items()}
    return tools


def describe(settings: AgentSettings) -> Mapping[str, str]:
    """What a prompt says of each: the server's own words, and the schema of the arguments.

    Raises:
        ValueError: No server is given, one cannot be had, or its tools are too many to list.
    """
    lines: dict[str, str] = {}
    for name, server in _servers(settings).items():
        own = {called: _line(tool) for called, tool in _served_tools(name, server).items()}
        if (chars := sum(map(len, own.values()))) > server.max_listed_chars:
            raise ValueError(
                f"the {len(own)} tools of the MCP server {name!r} take {chars:,} characters of the prompt, allowed are "
                f"{server.max_listed_chars:,}: name those that are needed in mcp.{name}.offer, or raise "
                f"mcp.{name}.max_listed_chars"
            )
        if double := sorted(own.keys() & lines.keys()):
            raise ValueError(
                f"two MCP servers have a tool {double[0]!r}; set mcp.{name}.prefix, or mcp.{name}.offer without it"
            )
        lines |= own
    return lines


def _line(tool: ServedTool) -> str:
    schema = json.dumps(tool.schema, ensure_ascii=False)
    text = f"{tool.description.strip()}\nIts arguments, as a JSON schema: {schema}".strip()
    return escape(textwrap.indent(text, "  ").lstrip())


def _servers(settings: AgentSettings) -> Mapping[str, McpServer]:
    if not settings.mcp:
        raise ValueError(
            "the tool `mcp` needs servers: set `mcp:`, such as {files: {command: [my-server]}}, or leave it out of `tools`"
        )
    return settings.mcp


def _served_tools(name: str, server: McpServer) -> Mapping[str, ServedTool]:
    """Its tools that are offered, by the names that the model calls; asked for once a process."""
    return _listed(name, server.model_dump_json())


@functools.cache
def _listed(name: str, block: str) -> Mapping[str, ServedTool]:
    server = McpServer.model_validate_json(block)
    try:
        from agent.tools._mcp_session import list_tools
    except ImportError as error:
        raise ValueError("the tool `mcp` needs the package mcp: pip install 'deepeyes[mcp]'") from error
    try:
        # In a thread: prompts are filled where an event loop runs, and where none does.
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(lambda: asyncio.run(list_tools(name, server))).result()
    except ToolUnavailable as error:
        raise ValueError(f"{error}; start it, or leave it out of `mcp`") from error
    there = {tool.name: tool for tool in found}
    wanted = sorted(there) if server.offer is None else server.offer
    if missing := [tool for tool in wanted if tool not in there]:
        raise ValueError(
            f"mcp.{name}.offer names {missing[0]!r}, which the server does not have; there are: "
            f"{', '.join(sorted(there)) or 'none'}"
        )
    return {server.prefix + tool: _checked(name, there[tool]) for tool in wanted}


def _checked(server: str, tool: Any) -> ServedTool:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    advice = f"leave it out: mcp.{server}.offer names the tools that the model gets"
    if not _NAME.fullmatch(tool.name):
        raise ValueError(
            f"the MCP server {server!r} has a tool {tool.name[:80]!r}, which is no name of letters, digits and _ - . /; "
            f"{advice}"
        )
    kind = validator_for(tool.input_schema, default=Draft202012Validator)
    try:
        kind.check_schema(tool.input_schema)
    except SchemaError as error:
        raise ValueError(
            f"the tool {tool.name!r} of the MCP server {server!r} has no JSON schema: {error.message[:200]}; {advice}"
        ) from error
    # An empty registry: a schema that points elsewhere is not fetched.
    check = kind(tool.input_schema, registry=Registry())
    return ServedTool(tool.name, tool.description or "", tool.input_schema, check)
