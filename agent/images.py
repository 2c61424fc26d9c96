"""The one image rule: how any image file comes to be what a model sees, in training, evaluation and chat alike.

`ImageFile` is a file as it was supplied; asked for its size or its pixels, it answers as everybody sees them: upright, in
RGB, on white (`code_sandbox.pictures`). `ImageRule` fits it to the grid of a model family, after which the family's own
processor has nothing left to resize. Pixels are decoded only where they are needed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from PIL import Image

from agent.image_sizes import MAX_ASPECT, nearest_size, observation_size, smart_resize
from code_sandbox.pictures import BROKEN, opened, orientation, upright_rgb, upright_size
from code_sandbox.png import png

MAX_DECODED_PIXELS = 178_956_970
"""An image that claims more is not decoded: in RGB it would take more than half a GiB. Pillow's own bound."""

_KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
"""What model servers read. An MPO is a JPEG, with further pictures behind its end."""
_JPEG_END = b"\xff\xd9"
_SETTLING_ROUNDS = 16
_EXAMPLES = ((1024, 768), (1920, 1080))
"""(width_px, height_px) of the images that a rule is told by."""


class UnreadableImage(ValueError):
    """The bytes are no image that Pillow can decode, or one with too many pixels."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What is known of a file without decoding it."""

    mime: str
    size: tuple[int, int]
    is_plain: bool


@dataclass(frozen=True)
class ImageFile:
    """One image file, identified by its content."""

    data: bytes
    """The file as it was supplied, in one of `code_sandbox.pictures.FORMATS`."""

    def __repr__(self) -> str:
        return f"ImageFile({self.sha256[:8]}, {len(self.data):,} bytes)"

    @classmethod
    def shared(cls, data: bytes) -> ImageFile:
        """The one object of this process for these bytes: the rollouts of a group then hold their image once."""
        image = cls(data)
        return _SHARED.setdefault(image.sha256, image)

    @classmethod
    def from_pil(cls, image: Image.Image) -> ImageFile:
        """Encode the upright RGB pixels of an image of any mode as PNG, fast rather than small, without metadata."""
        return cls(png(upright_rgb(image)))

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def mime(self) -> str:
        """Such as image/png.

        Raises:
            UnreadableImage: No image.
        """
        return self._header.mime

    @property
    def size(self) -> tuple[int, int]:
        """(width_px, height_px) when upright, read from the header.

        Raises:
            UnreadableImage: No image.
        """
        return self._header.size

    @property
    def is_plain(self) -> bool:
        """Whether all who read the file see the same: upright RGB in a common format, one frame, nothing transparent.

        Raises:
            UnreadableImage: No image.
        """
        return self._header.is_plain

    @cached_property
    def _header(self) -> _Header:
        with self._opened() as image:
            mime = "image/jpeg" if image.format == "MPO" else Image.MIME.get(image.format or "", "application/octet-stream")
            return _Header(mime, upright_size(image), _is_plain(image))

    def pil(self) -> Image.Image:
        """Decode to upright RGB on white: the pixels that every other reader of this image gets.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        with self._opened() as image:
            return upright_rgb(image)

    def check(self, *, quickly: bool = False) -> None:
        """Read all of the file; of a JPEG an eighth of each side is decoded, which takes a third of the time of `pil`.

        Args:
            quickly: Do not decode a plain JPEG or PNG whose end or whose checksums say that it is whole.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        if not self.is_plain:
            self.pil()
        elif not (quickly and self._seems_whole()):
            with self._opened() as image:
                if self.mime == "image/jpeg":
                    image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
                image.load()

    def upright(self) -> ImageFile:
        """This image at its own size, such that any reader sees what `pil` gives; a file that needs nothing is kept.

        The header decides whether anything is to be done; a JPEG or PNG that needs nothing is not decoded.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        if not self.is_plain:
            return ImageFile.from_pil(self.pil())
        self.check(quickly=True)
        return self

    def data_uri(self) -> str:
        """The upright file as a data URI, which an OpenAI-style `image_url` takes.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        shown = self.upright()
        return f"data:{shown.mime};base64,{base64.b64encode(shown.data).decode()}"

    def _seems_whole(self) -> bool:
        if self.mime == "image/jpeg":
            return self.data.rstrip(b"\0").endswith(_JPEG_END)
        try:
            with self._opened() as image:
                image.verify()
        except UnreadableImage:
            return False
        return self.mime == "image/png"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        """The file, opened; whatever its decoder raises becomes one type of error."""
        try:
            with opened(io.BytesIO(self.data)) as image:
                if image.width * image.height > MAX_DECODED_PIXELS:
                    raise UnreadableImage(
                        f"the image has {image.width}x{image.height} pixels; at most {MAX_DECODED_PIXELS:,} are decoded, so "
                        "make it smaller"
                    )
                yield image
        except UnreadableImage:
            raise
        except BROKEN as error:
            what = str(error) or type(error).__name__
            raise UnreadableImage(f"{len(self.data):,} bytes are no image, or a broken one: {what}") from error


def _is_plain(image: Image.Image) -> bool:
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    return (
        image.format in _KEPT_FORMATS
        and image.mode == "RGB"
        and "transparency" not in image.info
        and frames == 1
        and orientation(image) == 1
    )


_SHARED: WeakValueDictionary[str, ImageFile] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class ImageRule:
    """How large a model family is shown an image. What was fitted once is left as it is, by this and by its processor."""

    factor_px: int
    """Both sides are multiples of it: the patches that become one token."""
    min_pixels: int
    """Width times height, at least."""
    max_pixels: int
    """Width times height, at most."""

    def __post_init__(self) -> None:
        if self.factor_px < 1 or self.min_pixels < 1:
            raise ValueError(f"{self!r} must have positive numbers")
        if self.max_pixels // self.factor_px**2 < -(-self.min_pixels // self.factor_px**2):
            raise ValueError(
                f"no image of whole {self.factor_px}x{self.factor_px} px patches has between {self.min_pixels:,} and "
                f"{self.max_pixels:,} pixels; set image_max_pixels higher"
            )

    @classmethod
    def of_processor(cls, image_processor: Any) -> ImageRule:
        """How a model's own image processor resizes.

        Args:
            image_processor: Of transformers; Qwen's have `patch_size`, `merge_size` and `size`.
        """
        size = image_processor.size
        return cls(
            factor_px=int(image_processor.patch_size) * int(image_processor.merge_size),
            min_pixels=int(size["shortest_edge"]),
            max_pixels=int(size["longest_edge"]),
        )

    def __str__(self) -> str:
        shown = (f"{wide}x{high} as {self._told(wide, high)}" for wide, high in _EXAMPLES)
        return f"images have {self.min_pixels:,} to {self.max_pixels:,} pixels: {'; '.join(shown)}"

    def _told(self, width_px: int, height_px: int) -> str:
        wide, high = self.size(width_px, height_px)
        return f"{wide}x{high}, {self.num_tokens(width_px, height_px):,} tokens"

    def limited(self, image_max_pixels: int | None) -> ImageRule:
        """The rule with at most so many pixels; None leaves it to the family.

        Raises:
            ValueError: It is under what the family shows at least.
        """
        if image_max_pixels is None or image_max_pixels >= self.max_pixels:
            return self
        if image_max_pixels < self.min_pixels:
            raise ValueError(
                f"image_max_pixels is {image_max_pixels:,}; models of this family are shown at least {self.min_pixels:,}"
            )
        return replace(self, max_pixels=image_max_pixels)

    def size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width_px, height_px) at which an upright image of this size is shown.

        Extreme shapes are fitted as `observation_size` does, then `smart_resize` is repeated until it changes nothing: once
        is enough unless an image is longer than `max_pixels` allows for one row of patches, or rounding its sides brought
        its aspect above 200.

        Raises:
            ValueError: A side is 0.
        """
        if min(width_px, height_px) > 0 and self.is_fixed(width_px, height_px):
            return width_px, height_px
        size = fitted = observation_size(width_px, height_px)
        for _ in range(_SETTLING_ROUNDS):
            size = self._within_aspect(*smart_resize(*size, **self._limits))
            if self.is_fixed(*size):
                return size
        return nearest_size(*fitted, **self._limits)

    def is_fixed(self, width_px: int, height_px: int) -> bool:
        """Whether an image of this size is shown as it is."""
        on_grid = width_px % self.factor_px == 0 and height_px % self.factor_px == 0
        shaped = max(width_px, height_px) <= MAX_ASPECT * min(width_px, height_px)
        return on_grid and shaped and self.min_pixels <= width_px * height_px <= self.max_pixels

    def num_tokens(self, width_px: int, height_px: int) -> int:
        """Placeholders that stand for an upright image of this size."""
        wide, high = self.size(width_px, height_px)
        return wide * high // self.factor_px**2

    def keeps(self, image: ImageFile) -> bool:
        """Whether `apply` gives back the image itself, if it is whole; from the header alone.

        Raises:
            UnreadableImage: No image.
        """
        return image.is_plain and self.size(*image.size) == image.size

    def apply(self, image: ImageFile) -> ImageFile:
        """The image as models of the family see it: upright RGB of the right size. Blocks while it decodes.

        Asked again for an image while somebody holds what came of it, it gives the same object and decodes nothing.

        Returns:
            The image itself where nothing had to change (the header tells); otherwise a PNG without metadata.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        if self.keeps(image):
            return image.upright()
        size, key = self.size(*image.size), (image.sha256, self)
        with _FITTING[hash(key) % len(_FITTING)]:
            shown = _FITTED.get(key)
            if shown is None:
                pixels = image.pil()
                if pixels.size != size:
                    pixels = pixels.resize(size, Image.Resampling.BICUBIC)
                shown = _FITTED.setdefault(key, ImageFile.from_pil(pixels))
            return shown

    def _within_aspect(self, width_px: int, height_px: int) -> tuple[int, int]:
        longest_px = MAX_ASPECT * min(width_px, height_px)
        return min(width_px, longest_px), min(height_px, longest_px)

    @property
    def _limits(self) -> dict[str, int]:
        return {"factor_px": self.factor_px, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels}


_FITTED: WeakValueDictionary[tuple[str, ImageRule], ImageFile] = WeakValueDictionary()
# The rollouts of a group want the same image at the same moment: one of them decodes it.
_FITTING = tuple(threading.Lock() for _ in range(64))


def preview(image: ImageFile, max_pixels: int) -> ImageFile:
    """A JPEG (quality 85) with at most so many pixels, for looking at; an image that has no more keeps its bytes.

    Raises:
        UnreadableImage: No image.
    """
    width_px, height_px = image.size
    if width_px * height_px <= max_pixels:
        return image
    scale = math.sqrt(max_pixels / (width_px * height_px))
    size = max(1, math.floor(width_px * scale)), max(1, math.floor(height_px * scale))
    buffer = io.BytesIO()
    image.pil().resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return ImageFile(buffer.getvalue())
