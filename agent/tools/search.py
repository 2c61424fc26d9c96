"""`search`: text search of the web, or of what stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import ToolError
from agent.protocol import render_search_observation
from agent.search import SearchProvider
from agent.settings import AgentSettings
from agent.tools import EpisodeState, Tool, ToolContext, ToolResult

MAX_QUERY_CHARS = 500


class SearchTool:
    """One query a call."""

    def __init__(self, provider: SearchProvider, *, max_hits: int, state: EpisodeState | None = None) -> None:
        self._provider = provider
        self._max_hits = max_hits
        self._state = state or EpisodeState()

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Search; `arguments` is `{"query": string}`."""
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise ToolError("Invalid tool call parameters: search needs a string `query`")
        if len(query) > MAX_QUERY_CHARS:
            raise ToolError(f"Invalid tool call parameters: `query` has {len(query)} characters; at most {MAX_QUERY_CHARS}")
        results = await self._provider.search(query.strip(), max_hits=self._max_hits)
        self._state.results = results
        self._state.links.update(result.link for result in results)
        return ToolResult(render_search_observation(query.strip(), results))

    async def close(self) -> None:
        """Nothing to free: the provider is shared."""


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No provider.
    """
    if context.search is None:
        raise ValueError("the tool `search` needs a provider: set `search:` in the recipe or leave it out of `tools`")
    return SearchTool(context.search, max_hits=context.settings.max_hits, state=context.state)


def describe(settings: AgentSettings) -> str:
    """What a prompt says of the tool."""
    return f"text search of the web. `query` is one string. Returns up to {settings.max_hits} pages."
