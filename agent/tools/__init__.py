"""Tools the model can call. One file a tool: `agent/tools/<name>.py` with `build(context) -> Tool`.

`describe(settings) -> str` beside it, if there is one, is the tool's line in a prompt that lists tools. A file that stands
for several tools gives mappings by their names instead of one tool and one line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agent.images import ImageFile
from agent.loading import load_plugin
from agent.messages import Message
from agent.search import WebResult
from agent.settings import AgentSettings

if TYPE_CHECKING:
    from agent.search import ImageSearchProvider, PageProvider, SearchProvider


PROGRAM_LEFT_S: ContextVar[float | None] = ContextVar("program_left_s", default=None)
"""How long the model's programs may still run in this episode, in seconds; set by the loop around each call, also through
wrappers of a tool. None: no bound."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave."""

    observation: Message
    error: str = ""
    """What the model did wrong, such as the exception of its code; empty if nothing."""
    program_s: float = 0.0
    """How long the model's own program ran, waiting left out; 0 where none ran. Only this counts against its deadline."""


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


class CellRunner(Protocol):
    """A live sandbox session, as `code_sandbox.client` gives it."""

    async def execute(self, code: str, *, timeout_s: float, max_images: int = ..., max_chars: int = ...) -> Any: ...

    async def close(self) -> None: ...


class Sandbox(Protocol):
    """Opens sessions."""

    async def open(self, images: Sequence[bytes] = ..., *, session_id: str | None = ...) -> CellRunner: ...


class ToolSession(Protocol):
    """A session with a server of tools."""

    async def aclose(self) -> None:
        """End it; may be said twice."""
        ...


@dataclass(slots=True)
class EpisodeState:
    """What the tools of one episode tell each other."""

    results: list[WebResult] = field(default_factory=list)
    """Of the last search."""
    links: set[str] = field(default_factory=set)
    """Of all searches."""
    read_image: Callable[[str], Awaitable[ImageFile]] | None = None
    """Reads an image file that the code saved; raises ToolError if there is none."""
    sessions: dict[str, ToolSession] = field(default_factory=dict)
    """With servers of tools, by the server's name; what tools share is closed by the first that is closed."""
    keeps_sessions: bool = False
    """Whether they stay open for the next question of a conversation; who says so closes them."""


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
    pages: PageProvider | None = None
    settings: AgentSettings = field(default_factory=AgentSettings)
    state: EpisodeState = field(default_factory=EpisodeState)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """For tools of others."""


def build_tools(names: Sequence[str], context: ToolContext) -> dict[str, Tool]:
    """Build one episode's tools, by the names that the model calls.

    Raises:
        LookupError: No tool of that name.
        ValueError: A tool lacks what it needs, such as a sandbox.
    """
    tools: dict[str, Tool] = {}
    for name in names:
        built = load_plugin("agent.tools", name).build(context)
        tools |= built if isinstance(built, Mapping) else {name: built}
    return tools


def described_tools(names: Sequence[str], settings: AgentSettings) -> dict[str, str | None]:
    """What a prompt says of each tool that the model can call; None if the prompt itself explains it.

    Raises:
        LookupError: No tool of that name.
        ValueError: A tool that others serve cannot be had.
    """
    lines: dict[str, str | None] = {}
    for name in names:
        module = load_plugin("agent.tools", name)
        line = module.describe(settings) if hasattr(module, "describe") else None
        found = line if isinstance(line, Mapping) else {name: line}
        if double := sorted(found.keys() & lines.keys()):
            raise ValueError(
                f"{name} has a tool {double[0]!r}, and so has another; set the server's `prefix`, or `offer` without it"
            )
        lines |= found
    return lines


def describe_tools(names: Sequence[str], settings: AgentSettings) -> str:
    """The lines of a prompt that lists tools; a tool without `describe` is explained by the prompt itself.

    Raises:
        LookupError: No tool of that name.
        ValueError: A tool that others serve cannot be had.
    """
    return "\n".join(f"- {name}: {line}" for name, line in described_tools(names, settings).items() if line is not None)
