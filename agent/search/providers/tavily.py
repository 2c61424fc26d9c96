"""tavily.com."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.search import Page, WebResult
from agent.search.keys import api_key
from agent.search.limits import QueryLimit
from agent.search.pages import read_web_page
from agent.search.results import web_results
from agent.search.web import WebClient

PRICE_USD = 0.008
"""One credit, pay as you go, 2025; `advanced` takes two."""
QUERY_LIMIT = QueryLimit(chars=400)
"""Source: the server's own answer, «Max query length is 400 characters», in CherryHQ/cherry-studio#2201."""


class Settings(BaseModel):
    """`provider: tavily`; the key is in TAVILY_API_KEY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("https://api.tavily.com", exclude=True)
    depth: Literal["basic", "advanced"] = "basic"
    topic: Literal["general", "news"] = "general"


class Provider:
    """Text search, and pages."""

    def __init__(self, settings: Settings, web: WebClient) -> None:
        self._settings = settings
        self._web = web
        self._key = api_key("TAVILY_API_KEY", web)

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        settings = self._settings
        answer = await self._web.json(
            "POST",
            f"{settings.base_url}/search",
            headers={"Authorization": f"Bearer {self._key}"},
            json={"query": query, "max_results": max_hits, "search_depth": settings.depth, "topic": settings.topic},
        )
        names = {"title": "title", "link": "url", "snippet": "content", "date": "published_date"}
        return web_results("tavily", answer, ("results",), names, max_hits=max_hits)

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""
        return await read_web_page(self._web, link)
