"""How images come out of a session: encoded once, at most `max_pixels` large, as PNG without loss or as JPEG.

Runs inside the session, in both back-ends.
"""

from __future__ import annotations

import io
import math
import sys
from typing import Any

from PIL import Image

from code_sandbox.pictures import BROKEN, flat_rgb, opened, upright_rgb, upright_size
from code_sandbox.png import png

_SHOWN_AS_THEY_ARE = ("1", "L", "RGB")
_JPEG_QUALITY = 95
FIGURE_OPTIONS = {"bbox_inches": "tight", "pil_kwargs": {"compress_level": 1}}
"""Of Matplotlib, which has Pillow write its files. A higher level costs twice the time for a tenth of the size."""


class ImageEncoder:
    """Encodes Pillow images and shrinks figures; one a process, set anew for every cell."""

    def __init__(self) -> None:
        self.max_pixels = 1 << 62
        self.mime = "image/png"

    def encode(self, image: Image.Image) -> bytes | None:
        """The image's file, what is transparent on white; None for one without pixels, and a line that says so."""
        if not image.width or not image.height:
            print(f"[an image of {image.width}x{image.height} pixels cannot be shown: is the crop empty?]", file=sys.stderr)
            return None
        if image.mode not in _SHOWN_AS_THEY_ARE or image.has_transparency_data:
            image = flat_rgb(image)
        if image.width * image.height > self.max_pixels:
            image = self._shrunk(image)
        if self.mime != "image/jpeg":
            return png(image)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
        return buffer.getvalue()

    def _shrunk(self, image: Image.Image) -> Image.Image:
        scale = math.sqrt(self.max_pixels / (image.width * image.height))
        size = (max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale)))
        if image.mode == "1":
            image = image.convert("L")
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)

    def bounded(self, data: bytes) -> bytes:
        """A file that something else encoded, such as a figure: encoded again only if it is too large.

        What cannot be read stays as it is; the server drops it and says why.
        """
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height <= self.max_pixels:
                    return data
                return self.encode(image) or data
        except BROKEN:
            return data

    def install(self, shell: Any) -> None:
        """Make a shell's `display` use this encoder for Pillow images and quick compression for figures."""
        formatters = shell.display_formatter.formatters
        for mime in ("image/png", "image/jpeg"):
            formatters[mime].for_type(
                Image.Image, lambda image, mime=mime: self.encode(image) if mime == self.mime else None
            )


class QuestionImage(Image.Image):
    """An image of the question, upright and in RGB; decoded at first use, and from then on an ordinary `PIL.Image.Image`.

    Most episodes look at a crop or never compute at all; sixteen of a group share the file and need not decode it
    before they know.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._descriptor = descriptor
        with open(descriptor, "rb", closefd=False) as file, opened(file) as header:
            self._mode = "RGB"
            self._size = upright_size(header)

    def load(self) -> Any:
        """Decode."""
        if type(self) is QuestionImage:
            with open(self._descriptor, "rb", closefd=False) as file, opened(file) as source:
                self.im = upright_rgb(source).im
            self.__class__ = Image.Image  # type: ignore[assignment]
        return Image.Image.load(self)

    def __eq__(self, other: object) -> bool:
        self.load()
        return bool(Image.Image.__eq__(self, other))

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.load()
        return super().__reduce_ex__(protocol)

    __hash__ = None  # type: ignore[assignment]


# What `type(image_1)` and `repr` show must not depend on whether it was looked at.
QuestionImage.__name__ = QuestionImage.__qualname__ = "Image"
QuestionImage.__module__ = "PIL.Image"
