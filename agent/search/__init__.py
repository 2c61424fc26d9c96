"""Search of the web, of images, or of what stands for them.

__init__.py     what a provider is
providers/      one file a source, with `Settings` and `Provider`
limits.py       how long a query may be
gateway.py      what tools talk to: modes (live, record, replay, off), one request for equal questions, counters
web.py          asking other people's servers: rate, retries, deadline, budget
recording.py    a recorded run, one SQLite file
cache.py        what several nodes share, in Redis
pages.py        opening a page: readable text of what a link leads to
corpus.py       reading what a local index is built from
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.images import ImageFile


@dataclass(frozen=True, kw_only=True, slots=True)
class WebResult:
    """One line of search results."""

    title: str
    link: str = ""
    snippet: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class ImageHit:
    """A page that shows the image, or one like it."""

    title: str
    thumbnail: ImageFile


@dataclass(frozen=True, slots=True)
class Page:
    """What a link leads to."""

    title: str
    text: str
    problem: str = ""
    """Why there is no text, such as HTTP 404 of that site; the model is told so, for the web is like that."""


class SearchProvider(Protocol):
    """Text in, pages out."""

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """The best pages first; none found is an empty list.

        Raises:
            ToolUnavailable: The source does not answer.
        """
        ...


class ImageSearchProvider(Protocol):
    """An image in, pages out."""

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        """The best pages first; none found is an empty list.

        Args:
            image: The question's original image.
            item_id: Key of the question in a recorded search; live sources ignore it.
            max_hits: At most so many.

        Raises:
            ToolUnavailable: The source does not answer.
        """
        ...


class PageProvider(Protocol):
    """A link in, text out."""

    async def open_page(self, link: str) -> Page:
        """Read a page; one that cannot be read has a `problem`.

        Raises:
            ToolUnavailable: The fault is ours, not the page's.
        """
        ...
