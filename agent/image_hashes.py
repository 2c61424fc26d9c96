"""Perceptual hashes: equal, or nearly so, for images that look the same at another size or compression."""

from __future__ import annotations

import io

from agent.images import MAX_DECODED_PIXELS
from code_sandbox.pictures import BROKEN, opened, upright_rgb

_DRAFT_PX = 256
"""A JPEG is decoded at the smallest of its own scales above this: a fifth of the time, and at most 2 of 64 bits differ."""


def image_hash(data: bytes) -> int | None:
    """64 bits of a perceptual hash; None for what is no image, or for an image of one colour, which is like any other."""
    import imagehash

    try:
        with opened(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_DECODED_PIXELS:
                return None
            if image.format == "JPEG":
                image.draft("RGB", (_DRAFT_PX, _DRAFT_PX))
            grey = upright_rgb(image).convert("L")
    except BROKEN:
        return None
    low, high = grey.getextrema()
    return None if low == high else int(str(imagehash.phash(grey)), 16)
