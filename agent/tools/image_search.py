"""`image_search`: pages that show the question's image.

As published it takes no arguments and looks up the first image. With `any_image` it takes `image`: the number of an image of
the question, or the file name of one that the code saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import ToolError
from agent.images import ImageFile, UnreadableImage
from agent.protocol import render_image_search_observation
from agent.search import ImageSearchProvider
from agent.settings import AgentSettings
from agent.tools import Tool, ToolContext, ToolResult


class ImageSearchTool:
    """Looks up an image."""

    def __init__(self, provider: ImageSearchProvider, context: ToolContext) -> None:
        self._provider = provider
        self._context = context

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Search; `arguments` is `{}`, or with `any_image` `{"image": number or file name}`."""
        image, item_id = await self._chosen(arguments)
        hits = await self._provider.search_image(image, item_id=item_id, max_hits=self._context.settings.max_hits)
        titles, images = [], []
        for hit in hits:
            try:
                hit.thumbnail.check()
            except UnreadableImage:
                continue
            images.append(hit.thumbnail)
            titles.append(hit.title)
        return ToolResult(render_image_search_observation(titles, images))

    async def _chosen(self, arguments: Mapping[str, Any]) -> tuple[ImageFile, str]:
        """The image, and the question's key if it is the question's first image: that is what recorded searches hold."""
        context = self._context
        if not context.settings.any_image and arguments:
            raise ToolError("Invalid tool call parameters: image_search takes no arguments")
        if set(arguments) - {"image"}:
            raise ToolError("Invalid tool call parameters: image_search takes `image` only")
        wanted = arguments.get("image", 1)
        if isinstance(wanted, str):
            if context.state.read_image is None:
                raise ToolError("Invalid tool call parameters: `image` must be a number, for no code can be run here")
            return await context.state.read_image(wanted), ""
        if isinstance(wanted, bool) or not isinstance(wanted, int):
            raise ToolError(
                "Invalid tool call parameters: `image` must be the number of an image or the name of a saved file"
            )
        if not context.images:
            raise ToolError("image_search needs an image, and the question has none")
        if not 1 <= wanted <= len(context.images):
            raise ToolError(
                f"Invalid tool call parameters: there is no image {wanted}; the question has {len(context.images)}"
            )
        return context.images[wanted - 1], context.item_id if wanted == 1 else ""

    async def close(self) -> None:
        """Nothing to free: the provider is shared."""


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No provider.
    """
    if context.image_search is None:
        raise ValueError("the tool `image_search` needs `image_search:` in the recipe, or leave it out of `tools`")
    return ImageSearchTool(context.image_search, context)


def describe(settings: AgentSettings) -> str:
    """What a prompt says of the tool."""
    if settings.any_image:
        what = (
            "finds pages that show an image. `image` is the number of an image of the question (1, 2, ...) or the name of a "
            "file that your code saved, such as a crop"
        )
    else:
        what = (
            "finds pages that show the question's original image. It takes no arguments "
            '({"name": "image_search", "arguments": {}})'
        )
    allowed = settings.max_calls.get("image_search")
    often = (
        "" if allowed is None else ", and can be used only once" if allowed == 1 else f", and can be used {allowed} times"
    )
    return f"{what}, returns up to {settings.max_hits} results{often}."
