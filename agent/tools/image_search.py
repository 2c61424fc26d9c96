"""`image_search`: pages that show the question's first image. Once an episode, without arguments, as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import ToolError
from agent.images import ImageFile, UnreadableImage, fit_observation
from agent.protocol import render_image_search_observation
from agent.search import ImageSearchProvider
from agent.tools import Tool, ToolContext, ToolResult


class ImageSearchTool:
    """Looks up the original image, never a crop."""

    def __init__(self, provider: ImageSearchProvider, *, image: ImageFile | None, item_id: str, max_hits: int) -> None:
        self._provider = provider
        self._image = image
        self._item_id = item_id
        self._max_hits = max_hits
        self._used = False

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Search once."""
        if arguments:
            raise ToolError("Invalid tool call parameters: image_search takes no arguments")
        if self._used:
            raise ToolError("image_search can be used only once")
        if self._image is None:
            raise ToolError("image_search needs an image, and the question has none")
        self._used = True
        hits = await self._provider.search_image(self._image, item_id=self._item_id, max_hits=self._max_hits)
        titles, images = [], []
        for hit in hits:
            try:
                images.append(fit_observation(hit.thumbnail))
                titles.append(hit.title)
            except UnreadableImage:
                continue
        return ToolResult(render_image_search_observation(titles, images))

    async def close(self) -> None:
        """Nothing to free: the provider is shared."""


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No provider.
    """
    if context.image_search is None:
        raise ValueError("the tool `image_search` needs `image_search:` in the recipe, or leave it out of `tools`")
    return ImageSearchTool(
        context.image_search,
        image=context.images[0] if context.images else None,
        item_id=context.item_id,
        max_hits=context.max_hits,
    )
