"""Google results through serper.dev; what the paper's search used (DeepEyesV2 issue 25)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from agent.search import Page, WebResult
from agent.search.keys import api_key
from agent.search.limits import QueryLimit
from agent.search.pages import read_web_page
from agent.search.results import web_results
from agent.search.web import WebClient

PRICE_USD = 0.001
"""50,000 queries for $50: serper.dev's smallest plan, 2025."""
QUERY_LIMIT = QueryLimit(chars=2048)
"""Google's, whose results these are; serper.dev documents none of its own. Of a query's words Google reads the first 32 and
leaves out the rest without refusing it (serpapi/public-roadmap#2029).
Source: 2,048 is the longest query string of Google's own interfaces (Google Web API, «Search limitations»)."""


class Settings(BaseModel):
    """`provider: serper`; the key is in SERPER_API_KEY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("https://google.serper.dev", exclude=True)
    country: str = "us"
    language: str = "en"


class Provider:
    """Text search, and pages."""

    def __init__(self, settings: Settings, web: WebClient) -> None:
        self._settings = settings
        self._web = web
        self._key = api_key("SERPER_API_KEY", web)

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        settings = self._settings
        answer = await self._web.json(
            "POST",
            f"{settings.base_url}/search",
            headers={"X-API-KEY": self._key},
            json={"q": query, "num": max_hits, "gl": settings.country, "hl": settings.language},
        )
        names = {"title": "title", "link": "link", "snippet": "snippet", "date": "date"}
        return web_results("serper", answer, ("organic",), names, max_hits=max_hits)

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""
        return await read_web_page(self._web, link)
