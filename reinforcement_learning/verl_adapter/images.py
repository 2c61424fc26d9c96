"""Images of a rollout as references: sizes and tokens come from the header, pixels are decoded where they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from PIL import Image

from agent.chat_formats import format_of
from agent.errors import EpisodeFailure
from agent.images import ImageFile, ImageRule, UnreadableImage
from reinforcement_learning.verl_adapter.image_store import ImageRef, ImageStore


class PatchGrid:
    """How a model's image processor cuts an image that the image rule has fitted.

    Args:
        processor: A Hugging Face processor; verl's has the model's configuration, which tells the family.
    """

    def __init__(self, processor: Any) -> None:
        image_processor = processor.image_processor
        self.patch_px = int(image_processor.patch_size)
        self.merge = int(image_processor.merge_size)
        self._rule = ImageRule.of_processor(image_processor)
        config = getattr(processor, "config", None)
        if config is not None:
            self._rule = format_of(config.model_type).image_rule(None, self._rule)

    def of(self, ref: ImageRef) -> tuple[int, int, int]:
        """`image_grid_thw` of an image: (1, patches down, patches across).

        Raises:
            ValueError: The processor would resize it.
        """
        rule = self._rule
        if not rule.is_fixed(ref.width_px, ref.height_px):
            raise ValueError(
                f"image {ref.name} of {ref.width_px}x{ref.height_px} px would be resized by the model's own processor, "
                f"which leaves sides of whole {rule.factor_px} px and {rule.min_pixels:,} to {rule.max_pixels:,} pixels as "
                "they are; set agent.image_max_pixels to no more"
            )
        return 1, ref.height_px // self.patch_px, ref.width_px // self.patch_px

    def num_tokens(self, ref: ImageRef) -> int:
        """Placeholders that stand for an image in the prompt."""
        _, rows, columns = self.of(ref)
        return rows * columns // self.merge**2


class ImageReferences:
    """References and placeholder counts for the images of one rollout; decodes nothing.

    Args:
        processor: See `PatchGrid`.
        step: The training step whose rollout this is; images that it makes are removed some steps later.
        known: Names of images that the run's store has already.
    """

    def __init__(self, processor: Any, *, step: int | None = None, known: Iterable[str] = ()) -> None:
        self._grid = PatchGrid(processor)
        self._step = step
        self._known = set(known)
        self._waiting: dict[str, ImageFile] = {}

    def __call__(self, image: ImageFile) -> tuple[ImageRef, int]:
        """Returns: The image, which the rule has fitted, and the number of its placeholder tokens.

        Raises:
            ValueError: The model's processor would resize it.
        """
        name = image.sha256
        if name not in self._known and self._step is not None:
            name = f"{self._step}/{name}"
        ref = ImageRef(name, *image.size)
        num_tokens = self._grid.num_tokens(ref)
        if image.sha256 not in self._known:
            self._waiting[name] = image
        return ref, num_tokens

    async def store(self, store: ImageStore) -> None:
        """Write what the store lacks; must be done before the engine is asked.

        Raises:
            EpisodeFailure: An image cannot be written.
        """
        waiting, self._waiting = self._waiting, {}
        for image in waiting.values():
            try:
                await asyncio.to_thread(store.put, image.data, step=self._step)
            except OSError as error:
                raise EpisodeFailure(
                    f"an image of {len(image.data):,} bytes cannot be written to {store.root}: {error}"
                ) from error


def row_image(store: ImageStore, name: str) -> ImageFile:
    """An image of a row as it was supplied, one object for all rollouts of the process that hold it. Blocks: reads.

    Raises:
        ImageMissing: It is not in the store.
    """
    return ImageFile.shared(store.get(name))


def pixels_of(data: bytes, ref: ImageRef) -> Image.Image:
    """RGB pixels of a fitted image.

    Raises:
        UnreadableImage: The bytes are no image, or one of another size than the reference says.
    """
    pixels = ImageFile(data).pil()
    if pixels.size != (ref.width_px, ref.height_px):
        raise UnreadableImage(
            f"it has {pixels.width}x{pixels.height} px, and {ref.width_px}x{ref.height_px} were counted; images are fitted "
            "before they are named"
        )
    return pixels
