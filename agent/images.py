"""Images as files: bytes travel unchanged, pixels are decoded only where they are needed."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakValueDictionary

from PIL import Image

PATCH_GRID_PX = 28
MIN_SIDE_PX = 32
MAX_ASPECT = 200
SQUEEZED_ASPECT = 150


class UnreadableImage(ValueError):
    """The bytes are no image that Pillow can decode."""


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
        """Encode pixels as PNG, fast rather than small."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return cls(buffer.getvalue())

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def mime(self) -> str:
        """Such as image/png.

        Raises:
            UnreadableImage: No image.
        """
        with _opened(self.data) as image:
            return Image.MIME.get(image.format or "", "application/octet-stream")

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width_px, height_px), read from the header."""
        with _opened(self.data) as image:
            width_px, height_px = image.size
            return width_px, height_px

    def pil(self) -> Image.Image:
        """Decode to RGB.

        Raises:
            UnreadableImage: No image, or a broken one.
        """
        with _opened(self.data) as image:
            try:
                rgb: Image.Image = image.convert("RGB")
                return rgb
            except (OSError, ValueError, SyntaxError) as error:
                raise UnreadableImage(f"the image ({len(self.data):,} bytes) is broken: {error}") from error

    def data_uri(self) -> str:
        """For an OpenAI-style `image_url`."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{len(data):,} bytes are no image: {error}") from error


_SHARED: WeakValueDictionary[str, ImageFile] = WeakValueDictionary()


def observation_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Size at which an image made by the model's code is shown back to it.

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


def shrunk_size(width_px: int, height_px: int, max_pixels: int | None) -> tuple[int, int]:
    """(width_px, height_px) with at most so many pixels, in proportion; unchanged if they fit."""
    if max_pixels is None or width_px * height_px <= max_pixels:
        return width_px, height_px
    scale = math.sqrt(max_pixels / (width_px * height_px))
    return max(1, math.floor(width_px * scale)), max(1, math.floor(height_px * scale))
