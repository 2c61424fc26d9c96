"""A model, tools and search sources made of lists, for tests of ours and of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import ToolUnavailable
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import render_error_observation
from agent.search import ImageHit, Page, WebResult
from agent.tools import ToolResult


class ScriptedPolicy:
    """Says given replies in order, and remembers what it was shown. A `Reply` or an exception may stand for a text."""

    def __init__(self, *replies: str | Reply | Exception) -> None:
        self._replies = list(replies)
        self.seen: list[Message] = []

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        self.seen += new_messages
        if not self._replies:
            raise AssertionError("the script has no more replies; the episode went on longer than expected")
        said = self._replies.pop(0)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else Reply(text=said, finish="stop")


class EchoTool:
    """Shows its arguments back."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.closed = False

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        self.calls.append(dict(arguments))
        return ToolResult(render_error_observation(f"echo {dict(arguments)}"))

    async def close(self) -> None:
        self.closed = True


class LostTool:
    """A tool whose server is down."""

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        raise ToolUnavailable("the tool's server is down")

    async def close(self) -> None:
        raise ToolUnavailable("and it cannot even be closed")


class FakeSearch:
    """Finds the same pages for every query, the same hits for every image, and the same text behind every link."""

    def __init__(
        self, results: Sequence[WebResult] = (), hits: Sequence[ImageHit] = (), *, page: Page | None = None
    ) -> None:
        self._results, self._hits, self._page = list(results), list(hits), page or Page("", "", "no page")
        self.queries: list[str] = []
        self.images: list[ImageFile] = []

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        self.queries.append(query)
        return self._results[:max_hits]

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        self.queries.append(item_id)
        self.images.append(image)
        return self._hits[:max_hits]

    async def open_page(self, link: str) -> Page:
        return self._page


class LostSearch:
    """A source that is down."""

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        raise ToolUnavailable("the source is down")

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        raise ToolUnavailable("the source is down")

    async def open_page(self, link: str) -> Page:
        raise ToolUnavailable("the source is down")
