"""The one image rule: how any image file comes to be what a model sees, in training, evaluation and chat alike.

`ImageFile` is a file as it was supplied; asked for its size or its pixels, it answers as everybody sees them: upright, in
RGB, on white (`code_sandbox.pictures`). `ImageRule` fits it to the grid of a model family, after which the family's own
processor has nothing left to resize. Pixels are decoded only where they are needed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakValueDictionary

from PIL import Image

from code_sandbox.pictures import BROKEN, orientation, upright_rgb, upright_size

MIN_SIDE_PX = 32
MAX_ASPECT = 200
SQUEEZED_ASPECT = 150
MAX_DECODED_PIXELS = 178_956_970
"""An image that claims more is not decoded: in RGB it would take more than half a GiB. Pillow's own bound."""

_KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
"""What model servers read. An MPO is a JPEG, with further pictures behind its end."""
_JPEG_END = b"\xff\xd9"
_SETTLING_ROUNDS = 16


class UnreadableImage(ValueError):
    """The bytes are no image that Pillow can decode, or one with too many pixels."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What is known of a file without decoding it."""

    mime: str
    size: tuple[int, int]
    is_plain: bool
    """Whether all who read the file see the same: upright RGB in a common format, one frame, nothing transparent."""


@dataclass(frozen=True)
class ImageFile:
    """One image file, identified by its content."""

    data: bytes
    """The file as it was supplied, in any format Pillow reads."""

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
        buffer = io.BytesIO()
        upright_rgb(image).save(buffer, "PNG", compress_level=1)
        return cls(buffer.getvalue())

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

    @cached_property
    def _header(self) -> _Header:
        with _opened(self.data) as image:
            mime = "image/jpeg" if image.format == "MPO" else Image.MIME.get(image.format or "", "application/octet-stream")
            try:
                size = upright_size(image)
            except BROKEN as error:
                raise self._broken(error) from error
            return _Header(mime, size, _is_plain(image))

    def pil(self) -> Image.Image:
        """Decode to upright RGB on white: the pixels that every other reader of this image gets.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        with _opened(self.data) as image:
            try:
                return upright_rgb(image)
            except BROKEN as error:
                raise self._broken(error) from error

    def upright(self) -> ImageFile:
        """This image at its own size, such that any reader sees what `pil` gives; a file that needs nothing is kept.

        The header decides whether anything is to be done. A kept JPEG or PNG is not decoded: its end or its checksums tell
        whether it is whole.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        if not self._header.is_plain:
            return ImageFile.from_pil(self.pil())
        if not self._seems_whole():
            with _opened(self.data) as image:
                try:
                    image.load()
                except BROKEN as error:
                    raise self._broken(error) from error
        return self

    def data_uri(self) -> str:
        """For an OpenAI-style `image_url`: the file, upright.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        shown = self.upright()
        return f"data:{shown.mime};base64,{base64.b64encode(shown.data).decode()}"

    def _seems_whole(self) -> bool:
        if self.mime == "image/jpeg":
            return self.data.rstrip(b"\0").endswith(_JPEG_END)
        with _opened(self.data) as image:
            try:
                image.verify()
            except BROKEN:
                return False
            return self.mime == "image/png"

    def _broken(self, error: Exception) -> UnreadableImage:
        return UnreadableImage(f"the image ({len(self.data):,} bytes) is broken: {error or type(error).__name__}")


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except BROKEN as error:
        raise UnreadableImage(f"{len(data):,} bytes are no image: {error}") from error
    width_px, height_px = image.size
    if width_px * height_px > MAX_DECODED_PIXELS:
        raise UnreadableImage(
            f"the image has {width_px}x{height_px} pixels; at most {MAX_DECODED_PIXELS:,} are decoded, so make it smaller"
        )
    return image


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


def smart_resize(width_px: int, height_px: int, *, factor_px: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size that the image processor of a Qwen-VL model gives an image; the same in Qwen2-VL, 2.5 and 3.

    Args:
        width_px: At least 1.
        height_px: At least 1; neither side more than 200 times the other.
        factor_px: What both sides are to be multiples of.
        min_pixels: Width times height, at least.
        max_pixels: Width times height, at most.

    Returns:
        (width_px, height_px).

    Raises:
        ValueError: The aspect is above 200.

    Source: transformers 5.5.4, models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize; it too rounds halves to even.
    """
    if max(width_px, height_px) / min(width_px, height_px) > MAX_ASPECT:
        raise ValueError(f"an image of {width_px}x{height_px} px has an aspect above {MAX_ASPECT}")
    wide, high = round(width_px / factor_px) * factor_px, round(height_px / factor_px) * factor_px
    if wide * high > max_pixels:
        shrink_by = math.sqrt(width_px * height_px / max_pixels)
        wide, high = (max(factor_px, _floor(side_px / shrink_by, factor_px)) for side_px in (width_px, height_px))
    elif wide * high < min_pixels:
        grow_by = math.sqrt(min_pixels / (width_px * height_px))
        wide, high = (math.ceil(side_px * grow_by / factor_px) * factor_px for side_px in (width_px, height_px))
    return wide, high


def _floor(side_px: float, factor_px: int) -> int:
    return math.floor(side_px / factor_px) * factor_px


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
            raise ValueError(f"{self} must have positive numbers")
        if self.max_pixels // self.factor_px**2 < -(-self.min_pixels // self.factor_px**2):
            raise ValueError(
                f"no image of whole {self.factor_px}x{self.factor_px} px patches has between {self.min_pixels:,} and "
                f"{self.max_pixels:,} pixels; set image_max_pixels higher"
            )

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
        if min(width_px, height_px) > 0 and self._is_fixed(width_px, height_px):
            return width_px, height_px
        size = fitted = observation_size(width_px, height_px)
        for _ in range(_SETTLING_ROUNDS):
            size = self._within_aspect(
                *smart_resize(*size, factor_px=self.factor_px, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
            )
            if self._is_fixed(*size):
                return size
        return self._nearest(*fitted)

    def num_tokens(self, width_px: int, height_px: int) -> int:
        """Placeholders that stand for an upright image of this size."""
        wide, high = self.size(width_px, height_px)
        return wide * high // self.factor_px**2

    def apply(self, image: ImageFile) -> ImageFile:
        """The image as models of the family see it: upright RGB of the right size. Blocks while it decodes.

        Returns:
            The image itself where nothing had to change (the header tells); otherwise a PNG without metadata.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        size = self.size(*image.size)
        if size == image.size:
            return image.upright()
        return ImageFile.from_pil(image.pil().resize(size, Image.Resampling.BICUBIC))

    def _is_fixed(self, width_px: int, height_px: int) -> bool:
        on_grid = width_px % self.factor_px == 0 and height_px % self.factor_px == 0
        shaped = max(width_px, height_px) <= MAX_ASPECT * min(width_px, height_px)
        return on_grid and shaped and self.min_pixels <= width_px * height_px <= self.max_pixels

    def _within_aspect(self, width_px: int, height_px: int) -> tuple[int, int]:
        longest_px = MAX_ASPECT * min(width_px, height_px)
        return min(width_px, longest_px), min(height_px, longest_px)

    def _nearest(self, width_px: int, height_px: int) -> tuple[int, int]:
        """The size within the limits whose shape is nearest; for limits so close that smart_resize goes to and fro."""
        least, most = -(-self.min_pixels // self.factor_px**2), self.max_pixels // self.factor_px**2
        wanted = width_px / height_px
        found: list[tuple[float, int, int, int]] = []
        for rows in range(1, most + 1):
            fewest = max(-(-least // rows), -(-rows // MAX_ASPECT))
            columns = max(fewest, min(round(rows * wanted), most // rows, MAX_ASPECT * rows))
            if rows * columns <= most:
                found.append((abs(math.log(columns / rows / wanted)), -rows * columns, columns, rows))
        _, _, columns, rows = min(found)
        return columns * self.factor_px, rows * self.factor_px


QWEN2_VL_RULE = ImageRule(factor_px=28, min_pixels=3136, max_pixels=12_845_056)
"""Qwen2-VL and 2.5: patches of 14 px, merged two by two. Source: Qwen2.5-VL-7B-Instruct, preprocessor_config.json."""


def observation_size(width_px: int, height_px: int) -> tuple[int, int]:
    """The size to which an image of extreme shape is brought before it is put on the grid.

    An aspect above 200 has its long side squeezed to min(150, ratio / 2) times the short one; then a side under 32 px
    is brought up to 32 px with the other in proportion.

    Args:
        width_px: At least 1.
        height_px: At least 1.

    Returns:
        (width_px, height_px); unchanged for ordinary images.

    Raises:
        ValueError: A side is 0.

    Source: DeepEyesV2 0373e6e, envs/deepeyesv2/deepeyesv2.py:367-398 (maybe_resize_image).
    """
    if min(width_px, height_px) < 1:
        raise ValueError(f"an image of {width_px}x{height_px} px has no pixels")
    aspect = max(width_px, height_px) / min(width_px, height_px)
    if aspect > MAX_ASPECT:
        long_px = int(min(SQUEEZED_ASPECT, aspect / 2) * min(width_px, height_px))
        width_px, height_px = (long_px, height_px) if width_px > height_px else (width_px, long_px)
    if min(width_px, height_px) < MIN_SIDE_PX:
        scale = MIN_SIDE_PX / min(width_px, height_px)
        width_px, height_px = math.ceil(width_px * scale), math.ceil(height_px * scale)
    return width_px, height_px


def preview(image: ImageFile, max_pixels: int) -> ImageFile:
    """A JPEG (quality 85) with at most so many pixels, for looking at; an image that has no more keeps its bytes.

    Raises:
        UnreadableImage: No image.
    """
    small = shrink(image, max_pixels)
    if small is image:
        return image
    buffer = io.BytesIO()
    small.pil().save(buffer, "JPEG", quality=85)
    return ImageFile(buffer.getvalue())


def fit_observation(image: ImageFile) -> ImageFile:
    """Apply `observation_size`; an image that already fits keeps its bytes.

    Raises:
        UnreadableImage: No image.
    """
    size = observation_size(*image.size)
    if size == image.size:
        return image
    return ImageFile.from_pil(image.pil().resize(size, Image.Resampling.LANCZOS))


def shrink(image: ImageFile, max_pixels: int | None) -> ImageFile:
    """The image with at most so many pixels, its sides in proportion; one that fits keeps its bytes.

    Raises:
        UnreadableImage: No image.
    """
    size = shrunk_size(*image.size, max_pixels)
    if size == image.size:
        return image
    return ImageFile.from_pil(image.pil().resize(size, Image.Resampling.LANCZOS))


def shrunk_size(width_px: int, height_px: int, max_pixels: int | None) -> tuple[int, int]:
    """(width_px, height_px) with at most so many pixels, in proportion; unchanged if they fit."""
    if max_pixels is None or width_px * height_px <= max_pixels:
        return width_px, height_px
    scale = math.sqrt(max_pixels / (width_px * height_px))
    return max(1, math.floor(width_px * scale)), max(1, math.floor(height_px * scale))
