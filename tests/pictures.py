"""Picture files of every kind that people have, and what everybody must see in them.

Upright, each shows four quarters: red at the top left, green at the top right, blue at the bottom left, white at the bottom
right; or black at the top left of a transparent ground; or an even grey.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw

from agent.chat_formats import format_of

QWEN2_VL_RULE = format_of("qwen2_vl").image_rule()

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
QUARTERS = (RED, GREEN, BLUE, WHITE)
GREY_QUARTERS = ((76,) * 3, (75,) * 3, (29,) * 3, WHITE)
ON_CLEAR = (BLACK, WHITE, WHITE, WHITE)
# What is stored, so that its EXIF orientation makes it upright again.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    data: bytes
    quarters: tuple[tuple[int, int, int], ...]
    """Colours in the middles of the quarters: top left, top right, bottom left, bottom right."""
    tolerance: int = 0


def quarters_of(image: Image.Image) -> tuple[tuple[int, int, int], ...]:
    return tuple(image.getpixel((image.width * x // 4, image.height * y // 4)) for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)))


def drawn(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), WHITE)
    pen = ImageDraw.Draw(image)
    for colour, left, top in ((RED, 0, 0), (GREEN, width // 2, 0), (BLUE, 0, height // 2)):
        pen.rectangle((left, top, left + (width - 1) // 2, top + (height - 1) // 2), fill=colour)
    pen.rectangle((width // 2, height // 2, width, height), fill=WHITE)
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int, kind: str, **options: object) -> bytes:
    """The image stored as a camera does that says how it was held."""
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, kind, exif=exif, **options)


def with_chunk(png: bytes, name: bytes, body: bytes, before: bytes) -> bytes:
    """A PNG with a chunk more, before the first one of a name."""
    at = png.index(before) - 4
    return png[:at] + len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") + png[at:]


def pictures(width: int, height: int) -> dict[str, Picture]:
    """Of every kind, all of one size when upright."""
    return {kind: make() for kind, make in _makers(width, height).items()}


def picture(kind: str, width: int, height: int) -> Picture:
    """One of them."""
    return _makers(width, height)[kind]()


def _makers(width: int, height: int) -> dict[str, Callable[[], Picture]]:
    return _turned_ones(width, height) | _colours(width, height) | _frames(width, height)


def _turned_ones(width: int, height: int) -> dict[str, Callable[[], Picture]]:
    image = drawn(width, height)
    on_its_side = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'

    def jpeg(turn: int) -> Picture:
        return Picture(turned(image, turn, "JPEG", quality=95, subsampling=0), QUARTERS, 3)

    return {f"jpeg turned {turn}": partial(jpeg, turn) for turn in range(1, 9)} | {
        "png turned 6": lambda: Picture(turned(image, 6, "PNG"), QUARTERS),
        "tiff turned 6": lambda: Picture(turned(image, 6, "TIFF"), QUARTERS),
        "webp turned 6": lambda: Picture(turned(image, 6, "WEBP", lossless=True), QUARTERS),
        "png turned 6 behind its pixels": lambda: Picture(
            with_chunk(encoded(on_its_side, "PNG"), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"), b"IEND"), QUARTERS
        ),
        "png turned 6 by xmp": lambda: Picture(with_chunk(encoded(on_its_side, "PNG"), b"iTXt", xmp, b"IDAT"), QUARTERS),
    }


def _colours(width: int, height: int) -> dict[str, Callable[[], Picture]]:
    image, size = drawn(width, height), (width, height)
    grey, palette, cmyk = image.convert("L"), image.convert("P", palette=Image.Palette.ADAPTIVE), image.convert("CMYK")
    clear = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((0, 0, (width - 1) // 2, (height - 1) // 2), fill=(0, 0, 0, 255))
    sixteen, level, white = Image.new("I;16", size, 30_000), ((117,) * 3,) * 4, (WHITE,) * 4
    first = palette.getpixel((0, 0))
    return {
        "png": lambda: Picture(encoded(image, "PNG"), QUARTERS),
        "bmp": lambda: Picture(encoded(image, "BMP"), QUARTERS),
        "tiff": lambda: Picture(encoded(image, "TIFF"), QUARTERS),
        "colour as transparent": lambda: Picture(encoded(image, "PNG", transparency=RED), (WHITE, GREEN, BLUE, WHITE)),
        "grey": lambda: Picture(encoded(grey, "PNG"), GREY_QUARTERS),
        "grey jpeg": lambda: Picture(encoded(grey, "JPEG", quality=95), GREY_QUARTERS, 3),
        "grey as transparent": lambda: Picture(encoded(grey, "PNG", transparency=29), (*GREY_QUARTERS[:2], WHITE, WHITE)),
        "grey with alpha": lambda: Picture(encoded(clear.convert("LA"), "PNG"), ON_CLEAR),
        "1 bit": lambda: Picture(encoded(clear.getchannel("A").convert("1"), "PNG"), (WHITE, BLACK, BLACK, BLACK)),
        "cmyk jpeg": lambda: Picture(encoded(cmyk, "JPEG", quality=95, subsampling=0), QUARTERS, 3),
        "cmyk tiff": lambda: Picture(encoded(cmyk, "TIFF"), QUARTERS),
        "lab tiff": lambda: Picture(encoded(Image.new("LAB", size, (128, 128, 128)), "TIFF"), ((119,) * 3,) * 4, 3),
        "palette": lambda: Picture(encoded(palette, "PNG"), QUARTERS),
        "palette with one transparent": lambda: Picture(
            encoded(palette, "PNG", transparency=first), (WHITE, GREEN, BLUE, WHITE)
        ),
        "palette with alphas": lambda: Picture(encoded(palette, "PNG", transparency=bytes(256)), white),
        "alpha": lambda: Picture(encoded(clear, "PNG"), ON_CLEAR),
        "webp with alpha": lambda: Picture(encoded(clear, "WEBP", lossless=True), ON_CLEAR),
        "16 bit": lambda: Picture(encoded(sixteen, "PNG"), level),
        "16 bit as transparent": lambda: Picture(encoded(sixteen, "PNG", transparency=30_000), white),
        "16 bit tiff": lambda: Picture(encoded(sixteen, "TIFF"), level),
        "32 bit": lambda: Picture(encoded(Image.new("I", size, 30_000), "TIFF"), level),
        "floats to 1": lambda: Picture(encoded(Image.new("F", size, 30_000 / 65_535), "TIFF"), level),
        "floats to 255": lambda: Picture(encoded(Image.new("F", size, 117.2), "TIFF"), level),
    }


def _frames(width: int, height: int) -> dict[str, Callable[[], Picture]]:
    image = drawn(width, height)
    palette, black = image.convert("P", palette=Image.Palette.ADAPTIVE), Image.new("RGB", (width, height))
    more = {"save_all": True, "append_images": [black]}
    return {
        "mpo": lambda: Picture(encoded(image, "MPO", **more, quality=95), QUARTERS, 6),
        "gif with two frames": lambda: Picture(encoded(palette, "GIF", **more), QUARTERS),
        "png with two frames": lambda: Picture(encoded(image, "PNG", **more), QUARTERS),
        "webp with two frames": lambda: Picture(encoded(image, "WEBP", **more, lossless=True), QUARTERS),
    }
