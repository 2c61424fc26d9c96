"""A SearXNG server of your own; `json` must be among `search.formats` in its settings.yml."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.search import Page, WebResult
from agent.search.pages import read_web_page
from agent.search.results import web_results
from agent.search.web import TryLater, WebClient


class Settings(BaseModel):
    """`provider: searxng`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(exclude=True)
    """Such as http://127.0.0.1:8080."""
    engines: str = ""
    """Comma-separated; empty for the server's own choice."""
    language: str = "en"


class Provider:
    """Text search, and pages."""

    def __init__(self, settings: Settings, web: WebClient) -> None:
        self._settings = settings
        self._web = web

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        settings = self._settings
        wanted = {"q": query, "format": "json", "language": settings.language}
        if settings.engines:
            wanted["engines"] = settings.engines
        url = f"{settings.base_url.rstrip('/')}/search"
        answer = await self._web.json("GET", url, params=wanted, check=_some_engine_answered)
        names = {"title": "title", "link": "url", "snippet": "content", "date": "publishedDate"}
        return web_results("searxng", answer, ("results",), names, max_hits=max_hits)

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""
        return await read_web_page(self._web, link)


def _some_engine_answered(answer: Any) -> None:
    """Raises:
    TryLater: Nothing was found because the engines did not answer: that is no search without results.
    """
    silent = answer.get("unresponsive_engines") if isinstance(answer, dict) else None
    if silent and not answer.get("results"):
        reasons = ", ".join(": ".join(map(str, each)) if isinstance(each, list) else str(each) for each in silent[:5])
        raise TryLater(f"no engine answered ({reasons})")
