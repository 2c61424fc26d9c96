"""Brave Search's web API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from agent.search import Page, WebResult
from agent.search.keys import api_key
from agent.search.limits import QueryLimit
from agent.search.pages import read_web_page
from agent.search.results import web_results
from agent.search.web import WebClient

PRICE_USD = 0.005
"""$5 a thousand, 2025."""
QUERY_LIMIT = QueryLimit(chars=400, words=50)
"""Source: https://api-dashboard.search.brave.com/api-reference/web/search/get, parameter `q`."""
_MOST = 20
"""Results that the API gives at once."""


class Settings(BaseModel):
    """`provider: brave`; the key is in BRAVE_API_KEY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("https://api.search.brave.com", exclude=True)
    country: str = "us"
    language: str = "en"


class Provider:
    """Text search, and pages."""

    def __init__(self, settings: Settings, web: WebClient) -> None:
        self._settings = settings
        self._web = web
        self._key = api_key("BRAVE_API_KEY", web)

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        settings = self._settings
        answer = await self._web.json(
            "GET",
            f"{settings.base_url}/res/v1/web/search",
            headers={"X-Subscription-Token": self._key, "Accept": "application/json"},
            params={
                "q": query,
                "count": min(max_hits, _MOST),
                "country": settings.country,
                "search_lang": settings.language,
                "text_decorations": "false",
            },
        )
        names = {"title": "title", "link": "url", "snippet": "description", "date": "age"}
        return web_results("brave", answer, ("web", "results"), names, max_hits=max_hits)

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""
        return await read_web_page(self._web, link)
