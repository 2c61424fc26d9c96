"""`fetch_page`: open a result of a search and read its text, part by part.

Not part of the published protocol; add it to a recipe's `tools`. Only links that a search of the same episode returned are
opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import ToolError
from agent.messages import escape
from agent.protocol import render_tool_response
from agent.search import PageProvider
from agent.settings import AgentSettings
from agent.tools import EpisodeState, Tool, ToolContext, ToolResult


class FetchPageTool:
    """Opens what was found."""

    def __init__(self, provider: PageProvider, state: EpisodeState, *, page_chars: int) -> None:
        self._provider = provider
        self._state = state
        self._page_chars = page_chars

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Read a page; `arguments` is `{"result": number}` or `{"link": string}`, and perhaps `"part": number`."""
        link = self._link(arguments)
        part = arguments.get("part", 1)
        if isinstance(part, bool) or not isinstance(part, int) or part < 1:
            raise ToolError("Invalid tool call parameters: `part` must be a number from 1")
        page = await self._provider.open_page(link)
        if page.problem:
            return ToolResult(render_tool_response(f"The page {escape(link)} could not be read: {escape(page.problem)}"))
        parts = max(1, -(-len(page.text) // self._page_chars))
        if part > parts:
            raise ToolError(f"Invalid tool call parameters: the page has {parts} parts, there is no part {part}")
        text = page.text[(part - 1) * self._page_chars : part * self._page_chars]
        more = f" (part {part} of {parts})" if parts > 1 else ""
        return ToolResult(render_tool_response(f"# {escape(page.title)}{more}\n{escape(link)}\n\n{escape(text)}"))

    def _link(self, arguments: Mapping[str, Any]) -> str:
        number, link = arguments.get("result"), arguments.get("link")
        if isinstance(number, int) and not isinstance(number, bool) and link is None:
            if not 1 <= number <= len(self._state.results):
                raise ToolError(
                    f"Invalid tool call parameters: the last search has {len(self._state.results)} results, not {number}"
                )
            return self._state.results[number - 1].link
        if isinstance(link, str) and number is None:
            if link not in self._state.links:
                raise ToolError("Invalid tool call parameters: only a link that a search returned can be opened")
            return link
        raise ToolError("Invalid tool call parameters: fetch_page needs `result`, a number, or `link`, a string")

    async def close(self) -> None:
        """Nothing to free: the provider is shared."""


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No provider that opens pages.
    """
    if context.pages is None:
        raise ValueError("the tool `fetch_page` needs a `search:` provider that opens pages, or leave it out of `tools`")
    return FetchPageTool(context.pages, context.state, page_chars=context.settings.page_chars)


def describe(settings: AgentSettings) -> str:
    """What a prompt says of the tool."""
    return (
        "opens a page that the last search found and gives its text. `result` is the page's number. At most "
        f"{settings.page_chars} characters at a time; `part` (2, 3, ...) reads on."
    )
