"""The one look that a picture has for everybody: upright, in RGB of 8 bits, on white, its first frame, without metadata.

`agent.images` shows pictures to models through this, and the sandbox gives them to the model's code through this, so that a
crop made from what the model saw is the crop that it meant. It stands here because the sandbox imports no other room.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from typing import IO, Any

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

WHITE = (255, 255, 255)
"""The ground under transparency; vLLM's own loader takes the same (0.28, multimodal/media/image.py)."""
BROKEN = (
    OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, AttributeError, EOFError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise on files that are cut or wrong."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What pictures of strangers may be. Pillow knows 40 more formats, some of which start other programs (EPS) or are decoded
by code that few look at (PSD)."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_SIDEWAYS = (5, 6, 7, 8)
# A PNG may say its orientation after its pixels; Pillow decodes all of it to ask. Where none of these stands, there is none.
_PNG_MARKS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def opened(file: IO[bytes]) -> Image.Image:
    """Read a picture's header, in one of the allowed formats.

    Raises:
        BROKEN: It is none of them.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        expected = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UnidentifiedImageError(f"it begins with {file.read(12)!r}; expected {expected}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decode a picture and resolve everything that decoders disagree about.

    The EXIF orientation is applied. Transparency of any kind lies on white. Depths other than 8 bits are scaled: 16 bits
    from 65,535; 32-bit integers as 8 or 16 bits where their values fit, floats from 1, 255 or 65,535, whichever is the
    first that no value exceeds, and what fits none of these from its lowest to its highest value.

    Args:
        image: Of any mode, loaded or not; it is not changed.

    Returns:
        An RGB image of its own, whose `info` is empty.

    Raises:
        BROKEN: The file is.
    """
    image.load()
    rgb = flat_rgb(image)
    turn = _TURNS.get(orientation(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
    if rgb is image:
        rgb = image.copy()
    rgb.info = {}
    return rgb


def flat_rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB, what is transparent on white and what is deeper scaled as in `upright_rgb`; RGB without transparency
    is the image itself.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _eight_bits(image)
    elif image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    ground = Image.new("RGB", rgba.size, WHITE)
    ground.paste(rgba, mask=rgba.getchannel("A"))
    return ground


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width_px, height_px) that `upright_rgb` will have, from the header of an opened file."""
    if orientation(image) not in _SIDEWAYS:
        return image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # From Pillow 11.3 on, `size` is turned before the pixels are; the file's own numbers are the same for all.
        tags: Any = image.tag_v2
        return tags[TiffImagePlugin.IMAGELENGTH], tags[TiffImagePlugin.IMAGEWIDTH]
    return image.height, image.width


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none to be read. A PNG is decoded only if it may have one."""
    if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" and image.tile and not _may_be_turned(image.fp):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - what a camera wrote wrongly is no orientation, to vLLM as well
        return 1
    return found if found in _TURNS else 1


def _may_be_turned(file: Any) -> bool:
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    return any(mark in data for mark in _PNG_MARKS)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits as `L`, or as `LA` where one value stands for transparency.

    Pillow alone, which clips where it converts: NumPy does not belong to the base install.
    """
    clear = image.info.get("transparency")
    values = _finite(image) if image.mode == "F" else image.convert("I")
    lowest, highest = (float(bound) for bound in values.getextrema())  # type: ignore[arg-type]
    tops = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    top = next((top for top in tops if lowest >= 0 and highest <= top), None)
    base, span = (0.0, top) if top is not None else (lowest, (highest - lowest) or 1.0)
    grey = values.point(lambda value: value * (255.0 / span) + (0.5 - base * 255.0 / span)).convert("L")
    if isinstance(clear, int):
        alpha = bytes(0 if value == clear else 255 for value in array("i", values.tobytes()))
        grey.putalpha(Image.frombytes("L", grey.size, alpha))
    return grey


def _finite(image: Image.Image) -> Image.Image:
    """Floats with 0 in place of what is no number."""
    values = array("f", (value if math.isfinite(value) else 0.0 for value in array("f", image.tobytes())))
    return Image.frombytes("F", image.size, values.tobytes())
