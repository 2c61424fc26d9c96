"""Picture files of every kind that people have, and what everybody must see in them.

Upright, each shows four quarters: red at the top left, green at the top right, blue at the bottom left, white at the bottom
right; or black at the top left of a transparent ground; or an even grey.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw

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
    """By kind, all of one size when upright."""
    image = drawn(width, height)
    grey, palette = image.convert("L"), image.convert("P", palette=Image.Palette.ADAPTIVE)
    clear = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((0, 0, (width - 1) // 2, (height - 1) // 2), fill=(0, 0, 0, 255))
    sixteen, level = Image.new("I;16", (width, height), 30_000), ((117,) * 3,) * 4
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = image.transpose(Image.Transpose.ROTATE_90)
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'
    files = {
        f"jpeg turned {turn}": Picture(turned(image, turn, "JPEG", quality=95, subsampling=0), QUARTERS, 3)
        for turn in range(1, 9)
    }
    files |= {f"{kind} turned 6".lower(): Picture(turned(image, 6, kind), QUARTERS) for kind in ("PNG", "TIFF")}
    files |= {
        "webp turned 6": Picture(turned(image, 6, "WEBP", lossless=True), QUARTERS),
        "png turned 6 behind its pixels": Picture(
            with_chunk(encoded(on_its_side, "PNG"), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"), b"IEND"), QUARTERS
        ),
        "png turned 6 by xmp": Picture(with_chunk(encoded(on_its_side, "PNG"), b"iTXt", xmp, b"IDAT"), QUARTERS),
        "png": Picture(encoded(image, "PNG"), QUARTERS),
        "bmp": Picture(encoded(image, "BMP"), QUARTERS),
        "tiff": Picture(encoded(image, "TIFF"), QUARTERS),
        "mpo": Picture(encoded(image, "MPO", save_all=True, append_images=[clear.convert("RGB")], quality=95), QUARTERS, 6),
        "colour as transparent": Picture(encoded(image, "PNG", transparency=RED), (WHITE, GREEN, BLUE, WHITE)),
        "grey": Picture(encoded(grey, "PNG"), GREY_QUARTERS),
        "grey jpeg": Picture(encoded(grey, "JPEG", quality=95), GREY_QUARTERS, 3),
        "grey as transparent": Picture(encoded(grey, "PNG", transparency=29), (*GREY_QUARTERS[:2], WHITE, WHITE)),
        "grey with alpha": Picture(encoded(clear.convert("LA"), "PNG"), ON_CLEAR),
        "1 bit": Picture(encoded(clear.getchannel("A").convert("1"), "PNG"), (WHITE, BLACK, BLACK, BLACK)),
        "cmyk jpeg": Picture(encoded(image.convert("CMYK"), "JPEG", quality=95, subsampling=0), QUARTERS, 3),
        "cmyk tiff": Picture(encoded(image.convert("CMYK"), "TIFF"), QUARTERS),
        "lab tiff": Picture(encoded(Image.new("LAB", (width, height), (128, 128, 128)), "TIFF"), ((119,) * 3,) * 4, 3),
        "palette": Picture(encoded(palette, "PNG"), QUARTERS),
        "palette with one transparent": Picture(
            encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), (WHITE, GREEN, BLUE, WHITE)
        ),
        "palette with alphas": Picture(encoded(palette, "PNG", transparency=bytes(256)), (WHITE,) * 4),
        "alpha": Picture(encoded(clear, "PNG"), ON_CLEAR),
        "webp with alpha": Picture(encoded(clear, "WEBP", lossless=True), ON_CLEAR),
        "16 bit": Picture(encoded(sixteen, "PNG"), level),
        "16 bit as transparent": Picture(encoded(sixteen, "PNG", transparency=30_000), (WHITE,) * 4),
        "16 bit tiff": Picture(encoded(sixteen, "TIFF"), level),
        "32 bit": Picture(encoded(Image.new("I", (width, height), 30_000), "TIFF"), level),
        "floats to 1": Picture(encoded(Image.new("F", (width, height), 30_000 / 65_535), "TIFF"), level),
        "floats to 255": Picture(encoded(Image.new("F", (width, height), 117.2), "TIFF"), level),
        "gif with two frames": Picture(
            encoded(palette, "GIF", save_all=True, append_images=[Image.new("P", (width, height))]), QUARTERS
        ),
        "png with two frames": Picture(
            encoded(image, "PNG", save_all=True, append_images=[Image.new("RGB", (width, height))]), QUARTERS
        ),
        "webp with two frames": Picture(
            encoded(image, "WEBP", save_all=True, append_images=[Image.new("RGB", (width, height))], lossless=True), QUARTERS
        ),
    }  # fmt: skip
    return files
