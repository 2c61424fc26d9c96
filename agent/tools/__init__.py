"""Tools the model can call. One file a tool: `agent/tools/<name>.py` with `build(context) -> Tool`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agent.images import ImageFile
from agent.loading import load_plugin
from agent.messages import Message

if TYPE_CHECKING:
    from agent.search import ImageSearchProvider, SearchProvider


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave."""

    observation: Message
    error: str = ""
    """What the model did wrong, such as the exception of its code; empty if nothing."""


class Tool(Protocol):
    """Something the model can call by name. Lives as long as one episode."""

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one call.

        Raises:
            ToolError: The model's mistake; it reads the message.
            ToolUnavailable: Our outage.
        """
        ...

    async def close(self) -> None:
        """Free what the tool holds."""
        ...


class Session(Protocol):
    """A live sandbox session, as `code_sandbox.client` gives it."""

    async def execute(self, code: str, *, timeout_s: float) -> Any: ...

    async def close(self) -> None: ...


class Sandbox(Protocol):
    """Opens sessions."""

    async def open(self, images: Sequence[bytes] = ..., *, session_id: str | None = ...) -> Session: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What tools of one episode are built from."""

    images: tuple[ImageFile, ...] = ()
    """The question's images, in order: `image_1` …"""
    item_id: str = ""
    """Key of the question in a recorded image search."""
    sandbox: Sandbox | None = None
    search: SearchProvider | None = None
    image_search: ImageSearchProvider | None = None
    python_timeout_s: float = 200.0
    """Per cell. Source: DeepEyesV2 0373e6e, envs/deepeyesv2/deepeyesv2.py."""
    max_hits: int = 5
    extra: Mapping[str, Any] = field(default_factory=dict)
    """For tools of others."""


def build_tools(names: Sequence[str], context: ToolContext) -> dict[str, Tool]:
    """Build one episode's tools.

    Raises:
        LookupError: No tool of that name.
        ValueError: A tool lacks what it needs, such as a sandbox.
    """
    return {name: load_plugin("agent.tools", name).build(context) for name in names}
