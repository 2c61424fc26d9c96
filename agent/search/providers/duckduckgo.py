"""DuckDuckGo and others through the `ddgs` library: no key and no price, and no promise either."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import ToolUnavailable
from agent.search import Page, WebResult
from agent.search.limits import QueryLimit
from agent.search.pages import read_web_page
from agent.search.results import web_results
from agent.search.web import TryLater, WebClient

Ask = Callable[..., list[dict[str, Any]]]
QUERY_LIMIT = QueryLimit(chars=500)
"""Source: duckduckgo/duckduckgo#86 («internally we limit to 500») and serpapi/public-roadmap#3278."""


class Settings(BaseModel):
    """`provider: duckduckgo`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str = "us-en"
    backend: str = "duckduckgo"
    """Of ddgs: `auto`, or comma-separated names."""
    proxy: str | None = Field(None, exclude=True)


class Provider:
    """Text search, and pages.

    Args:
        settings: Of this provider.
        web: Whose limits hold; the library has connections of its own.
        ask: In place of `DDGS().text`, for tests.
    """

    def __init__(self, settings: Settings, web: WebClient, *, ask: Ask | None = None) -> None:
        self._settings = settings
        self._web = web
        self._ask = ask or _library(settings, web.settings.timeout_s)

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        names = {"title": "title", "link": "href", "snippet": "body"}

        async def once() -> list[WebResult]:
            try:
                found = await asyncio.to_thread(
                    self._ask, query, region=self._settings.region, max_results=max_hits, backend=self._settings.backend
                )
            except TryLater:
                raise
            except Exception as error:  # the library's own types are there only where it is installed
                if "No results" in str(error):
                    return []
                raise TryLater(f"{type(error).__name__}: {error}") from error
            return web_results("duckduckgo", {"results": found}, ("results",), names, max_hits=max_hits)

        return await self._web.attempt(once)

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""
        return await read_web_page(self._web, link)


def _library(settings: Settings, timeout_s: float) -> Ask:
    try:
        from ddgs.ddgs import DDGS
    except ImportError as error:
        raise ToolUnavailable("provider duckduckgo needs the package ddgs: pip install 'deepeyes[search]'") from error

    class Watched(DDGS):  # type: ignore[misc]
        """Keeps what the sites answered: the library itself says «No results found.» for a bot page too."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.answers: list[tuple[int, str]] = []

        def _get_engines(self, category: str, backend: str) -> list[Any]:
            engines: list[Any] = super()._get_engines(category, backend)
            for engine in engines:
                engine.http_client.request = self._kept(engine.http_client.request)
            return engines

        def _kept(self, request: Callable[..., Any]) -> Callable[..., Any]:
            def asked(*arguments: Any, **named: Any) -> Any:
                answer = request(*arguments, **named)
                self.answers.append((answer.status_code, answer.text))
                return answer

            return asked

    def ask(query: str, **options: Any) -> list[dict[str, Any]]:
        client = Watched(proxy=settings.proxy, timeout=int(timeout_s))
        try:
            found: list[dict[str, Any]] = client.text(query, **options)
        except Exception as error:
            if "No results" in str(error) and not any(_says_so(*answer) for answer in client.answers):
                statuses = ", ".join(f"HTTP {status}" for status, _ in client.answers[:5]) or "no answer"
                message = f"no results, and no site says that there are none ({statuses}): a page for bots?"
                raise TryLater(message) from error
            raise
        return found

    return ask


_NOTHING = re.compile(
    r"no[\s_-]*(?:more[\s_-]*)?(?:web[\s_-]*)?(?:results|pages|matches)|did not (?:match|find)|nothing (?:was )?found"
    r"|could(?:n.t| not) find|\[\s*\]",
    re.IGNORECASE,
)


def _says_so(status: int, page: str) -> bool:
    """Whether a site says that it found nothing."""
    return status == 200 and "anomaly" not in page and _NOTHING.search(page) is not None
