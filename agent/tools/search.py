"""`search`: text search of the web, or of what stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import ToolError
from agent.protocol import render_search_observation
from agent.search import SearchProvider
from agent.search.limits import UNDOCUMENTED, QueryLimit, limit_of
from agent.settings import AgentSettings
from agent.tools import EpisodeState, Tool, ToolContext, ToolResult


class SearchTool:
    """One query a call."""

    def __init__(
        self, provider: SearchProvider, *, max_hits: int, limit: QueryLimit = UNDOCUMENTED, state: EpisodeState | None = None
    ) -> None:
        self._provider = provider
        self._max_hits = max_hits
        self._limit = limit
        self._state = state or EpisodeState()

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Search; `arguments` is `{"query": string}`."""
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise ToolError("Invalid tool call parameters: search needs a string `query`")
        query = query.strip()
        if problem := self._limit.problem(query):
            raise ToolError(f"Invalid tool call parameters: {problem}")
        results = await self._provider.search(query, max_hits=self._max_hits)
        self._state.results = results
        self._state.links.update(result.link for result in results)
        return ToolResult(render_search_observation(query, results))

    async def close(self) -> None:
        """Nothing to free: the provider is shared."""


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No provider.
    """
    if context.search is None:
        raise ValueError("the tool `search` needs a provider: set `search:` in the recipe or leave it out of `tools`")
    settings = context.settings
    return SearchTool(context.search, max_hits=settings.max_hits, limit=limit_of(settings.search), state=context.state)


def describe(settings: AgentSettings) -> str:
    """What a prompt says of the tool; the length of a query only where the source has a limit of its own."""
    limit = limit_of(settings.search)
    longest = "" if limit is UNDOCUMENTED else f" of at most {limit}"
    return f"text search of the web. `query` is one string{longest}. Returns up to {settings.max_hits} pages."
