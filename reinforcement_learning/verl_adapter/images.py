"""Images of a rollout as references: sizes and tokens come from the header, pixels are made where they are used."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

from PIL import Image

from agent.errors import EpisodeFailure
from agent.images import ImageFile, UnreadableImage
from reinforcement_learning.verl_adapter.image_store import ImageRef, ImageStore


class QwenGrid:
    """How Qwen2-VL's and Qwen2.5-VL's image processor cuts an image of a given size.

    Args:
        image_processor: The model's own.
    """

    def __init__(self, image_processor: Any) -> None:
        self.patch_px = int(image_processor.patch_size)
        self.merge = int(image_processor.merge_size)
        size = image_processor.size
        self._min_pixels, self._max_pixels = int(size["shortest_edge"]), int(size["longest_edge"])

    def fitted(self, width_px: int, height_px: int, *, max_pixels: int | None = None) -> tuple[int, int]:
        """(width_px, height_px) after its resize, at most `max_pixels` if given instead of its own limit."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        height, width = smart_resize(
            height_px,
            width_px,
            self.patch_px * self.merge,
            min_pixels=self._min_pixels,
            max_pixels=self._max_pixels if max_pixels is None else max_pixels,
        )
        return width, height

    def of(self, ref: ImageRef) -> tuple[int, int, int]:
        """`image_grid_thw` of an image: (1, patches down, patches across)."""
        width_px, height_px = self.fitted(ref.width_px, ref.height_px)
        return 1, height_px // self.patch_px, width_px // self.patch_px

    def num_tokens(self, ref: ImageRef) -> int:
        """Placeholders that stand for an image in the prompt."""
        _, rows, columns = self.of(ref)
        return rows * columns // self.merge**2


class QwenImageSizer:
    """References and placeholder counts for the images of one rollout; decodes nothing.

    Args:
        processor: A Hugging Face Qwen2-VL or Qwen2.5-VL processor.
        max_pixels: Images larger than this are shrunk before the processor sees them, in rollout and training alike; None
            leaves it to the processor.
        step: The training step whose rollout this is; images that it makes are removed some steps later.
        known: Names of images that the run's store has already.
    """

    def __init__(
        self, processor: Any, *, max_pixels: int | None = None, step: int | None = None, known: Iterable[str] = ()
    ) -> None:
        self._grid = QwenGrid(processor.image_processor)
        self._limit = max_pixels
        self._step = step
        self._known = set(known)
        self._waiting: dict[str, ImageFile] = {}

    def __call__(self, image: ImageFile) -> tuple[ImageRef, int]:
        """Returns: The image as the model will see it, and the number of its placeholder tokens."""
        width_px, height_px = image.size
        if self._limit is not None and width_px * height_px > self._limit:
            width_px, height_px = self._grid.fitted(width_px, height_px, max_pixels=self._limit)
        name = image.sha256
        if name not in self._known:
            name = name if self._step is None else f"{self._step}/{name}"
            self._waiting[name] = image
        ref = ImageRef(name, width_px, height_px)
        return ref, self._grid.num_tokens(ref)

    async def store(self, store: ImageStore) -> None:
        """Write what the store lacks; must be done before the engine is asked.

        Raises:
            EpisodeFailure: An image is broken, or cannot be written.
        """
        waiting, self._waiting = self._waiting, {}
        for image in waiting.values():
            try:
                await asyncio.to_thread(_check_and_put, store, image, self._step)
            except UnreadableImage as error:
                raise EpisodeFailure(str(error)) from error
            except OSError as error:
                raise EpisodeFailure(
                    f"an image of {len(image.data):,} bytes cannot be written to {store.root}: {error}"
                ) from error


def _check_and_put(store: ImageStore, image: ImageFile, step: int | None) -> None:
    image.pil()
    store.put(image.data, step=step)


@functools.lru_cache(maxsize=10_000)
def _check(store: ImageStore, name: str) -> None:
    ImageFile(store.get(name)).pil()


def row_image(store: ImageStore, name: str) -> ImageFile:
    """An image of a row, one object for all rollouts of the process that hold it. Blocks: reads and decodes at first use.

    Raises:
        ImageMissing: It is not in the store.
        UnreadableImage: It is broken, which is better told here than by the engine.
    """
    _check(store, name)
    return ImageFile.shared(store.get(name))


def pixels_of(data: bytes, ref: ImageRef) -> Image.Image:
    """RGB pixels at the size that the reference names.

    Raises:
        UnreadableImage: The bytes are no image.
    """
    pixels = ImageFile(data).pil()
    if pixels.size != (ref.width_px, ref.height_px):
        pixels = pixels.resize((ref.width_px, ref.height_px), Image.Resampling.BICUBIC)
    return pixels
