"""Sources of search results. One file a provider: `agent/search/<name>.py` with `Settings` and `Provider`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.images import ImageFile
from agent.protocol import WebResult


@dataclass(frozen=True, slots=True)
class ImageHit:
    """A page that shows the image, or one like it."""

    title: str
    thumbnail: ImageFile


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
