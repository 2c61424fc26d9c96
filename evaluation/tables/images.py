"""An image as it stands in a table's cell: bytes, base64 however it is dressed, a data URI, the path of a file, or its name
in the store that the table lies in.
"""

from __future__ import annotations

import ast
import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary, store_of
from agent.images import ImageFile, UnreadableImage
from evaluation.errors import BenchmarkError

_NAME = re.compile(r"[0-9a-f]{64}")
_MAX_PATH_CHARS = 1024
_QUOTED_BYTES = ("b'", 'b"')
"""What Python writes around bytes that somebody put into a text."""
_URL_SAFE = str.maketrans("-_", "+/")


def read_image(value: Any, folder: Path, place: str) -> ImageFile:
    """The image of a cell, its pixels not decoded.

    Args:
        value: Bytes, `{"bytes", "path"}`, base64 (wrapped, without its padding, url-safe, as a data URI), a path, or a
            name in a store (its sha256).
        folder: Where paths start; where it lies in a store (agent/image_library.py), that has the images of those names.
        place: For messages.

    Raises:
        BenchmarkError: It is none of these, or no such file is there.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return ImageFile(value)
    if not isinstance(value, str):
        raise BenchmarkError(f"{place}: an image is {type(value).__name__}; expected bytes, base64 or a path")
    if len(value) > _MAX_PATH_CHARS:
        try:
            return ImageFile(decode_base64(value))
        except ValueError as error:
            raise BenchmarkError(f"{place}: the image is no base64 ({error}); was the file cut off?") from error
    if _NAME.fullmatch(value) and (store := store_of(folder)) is not None:
        return _stored(ImageLibrary(store), value, place)
    path = folder / value.removeprefix("file://")
    try:
        if path.is_file():
            return ImageFile(path.read_bytes())
    except OSError:
        pass  # base64 is no file name that a system takes
    try:
        image = ImageFile(decode_base64(value))
        _ = image.size  # nearly any short word is base64 of something
    except (ValueError, UnreadableImage) as error:
        raise BenchmarkError(
            f"{place}: no image file {value[:80]!r} in {folder}, and it is no base64 of an image"
        ) from error
    return image


def _stored(library: ImageLibrary, name: str, place: str) -> ImageFile:
    try:
        return ImageFile(library.get(name))
    except OSError as error:
        raise BenchmarkError(f"{place}: {error}") from error


def decode_base64(text: str) -> bytes:
    """The bytes of base64, or of a data URI.

    Raises:
        ValueError: It is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        pass
    text = text.strip()
    if text.startswith(_QUOTED_BYTES) and text.endswith(text[1]):
        text = text[2:-1]
    if text.startswith("data:"):
        text = text.partition(",")[2]
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def listed(text: str, place: str) -> list[Any]:
    """The entries of a cell that may be a list literal; any other cell is its own only entry, and an empty one has none.

    Raises:
        BenchmarkError: It begins as a list and is none.
    """
    if not text.startswith("["):
        return [text] if text else []
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise BenchmarkError(f"{place}: image starts with '[' but is no list: {error}") from error
    return list(values)
