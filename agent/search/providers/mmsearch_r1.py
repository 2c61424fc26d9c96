"""Recorded image searches of MMSearch-R1, as DeepEyesV2 publishes them.

A JSON object keyed by question id (`fvqa_train_0` …), each value with `tool_returned_web_title: [str]` and
`cached_images_path: [path or null]`. Entries whose image is null or missing are left out, titles stay aligned by index.
Source: DeepEyesV2 0373e6e, data/cache_convert.py and search_utils.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import ToolUnavailable
from agent.images import ImageFile
from agent.search import ImageHit
from agent.search.web import WebClient


class Settings(BaseModel):
    """Read from the recipe's `image_search:` block."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(exclude=True)
    """The cache file."""
    images_directory: Path | None = Field(None, exclude=True)
    """Where relative image paths start; by default the cache file's folder."""


class Provider:
    """One cache file, read once."""

    def __init__(self, settings: Settings, web: WebClient | None = None) -> None:
        try:
            cache = json.loads(settings.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no image-search cache at {settings.path}; see data/README.md for where to get it"
            ) from None
        except ValueError as error:
            raise ValueError(f"{settings.path} is no JSON ({error}); fetch it again") from error
        if not isinstance(cache, dict):
            raise ValueError(f"{settings.path} holds a {type(cache).__name__}; expected an object keyed by question id")
        self._cache: dict[str, Any] = cache
        self._directory = settings.images_directory or settings.path.parent

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        """What was recorded for the question; a question that was never recorded has no hits."""
        entry = self._cache.get(item_id)
        if not isinstance(entry, dict):
            return []
        titles, paths = entry.get("tool_returned_web_title") or [], entry.get("cached_images_path") or []
        if not isinstance(titles, list) or not all(isinstance(path, str | None) for path in paths):
            raise ToolUnavailable(f"the image-search cache is damaged at {item_id!r}: expected lists of titles and of paths")
        hits: list[ImageHit] = []
        for title, relative in zip(titles, paths, strict=False):
            if len(hits) == max_hits:
                break
            if relative and (path := self._directory / relative).is_file():
                hits.append(ImageHit(str(title), ImageFile(path.read_bytes())))
        return hits
