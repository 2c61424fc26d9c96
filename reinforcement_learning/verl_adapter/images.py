"""Pixels for Qwen2-VL's processor, and how many tokens they take, without running the processor."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from PIL import Image

from agent.images import ImageFile

_PIXELS: WeakValueDictionary[tuple[str, int | None], Image.Image] = WeakValueDictionary()
"""By hash and `max_pixels`, while a rollout holds them: every rollout has a sizer of its own."""


class QwenImageSizer:
    """Decodes an image and counts its placeholder tokens as the model's own processor will.

    Args:
        processor: A Hugging Face Qwen2-VL or Qwen2.5-VL processor.
        max_pixels: Images larger than this are shrunk first, so that rollout and training see the same pixels; None
            leaves it to the processor.
    """

    def __init__(self, processor: Any, *, max_pixels: int | None = None) -> None:
        image_processor = processor.image_processor
        self._factor = image_processor.patch_size * image_processor.merge_size
        size = image_processor.size
        self._min_pixels, self._max_pixels = int(size["shortest_edge"]), int(size["longest_edge"])
        self._limit = max_pixels

    def __call__(self, image: ImageFile) -> tuple[Image.Image, int]:
        """Returns: RGB pixels, shared by all who hold the same image, and the number of placeholder tokens."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        key = (image.sha256, self._limit)
        pixels = _PIXELS.get(key)
        if pixels is None:
            pixels = _PIXELS[key] = self._decode(image)
        height, width = smart_resize(
            pixels.height, pixels.width, self._factor, min_pixels=self._min_pixels, max_pixels=self._max_pixels
        )
        return pixels, height * width // self._factor**2

    def _decode(self, image: ImageFile) -> Image.Image:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        pixels = image.pil()
        if self._limit is not None and pixels.width * pixels.height > self._limit:
            height, width = smart_resize(
                pixels.height, pixels.width, self._factor, min_pixels=self._min_pixels, max_pixels=self._limit
            )
            pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
        return pixels
