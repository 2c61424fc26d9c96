"""The images of a training row as file bytes, in every form in which people write them; see rows.py for the forms."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary, store_of
from agent.images import ImageFile
from reinforcement_learning.row_errors import RowError

_NAME = re.compile(r"[0-9a-f]{64}")


def is_list(value: Any) -> bool:
    """Whether it holds several values. Arrays are what pandas and `datasets` make of lists."""
    return isinstance(value, list | tuple) or type(value).__name__ == "ndarray"


def images_of(value: Any) -> list[Any]:
    """The images of a column: one, a list of them, or none."""
    if value is None:
        return []
    return list(value) if is_list(value) else [value]


def image_bytes(value: Any, folders: Sequence[Path]) -> bytes:
    """The file of one image.

    Args:
        value: Struct of bytes and path, bytes, path, data URI, or Pillow image.
        folders: In which a relative path is looked for, in order.

    Raises:
        RowError: Nothing there, or no such file.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _not_empty(bytes(value))
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if data is not None and not isinstance(data, bytes | bytearray | memoryview):
            raise RowError("image has a wrong type", f"its bytes are a {type(data).__name__}")
        if data:
            return bytes(data)
        if path is not None and not isinstance(path, str):
            raise RowError("image has a wrong type", f"its path is a {type(path).__name__}")
        if not path:
            raise RowError("image is null", "neither bytes nor path is given; expected one of them, or no entry at all")
        return _read_image(path, folders)
    if isinstance(value, str):
        return _read_image(value, folders)
    if hasattr(value, "save") and hasattr(value, "mode"):
        return ImageFile.from_pil(value).data
    if value is None:
        raise RowError("image is null", "the list of images holds null; expected an image, or no entry at all")
    raise RowError(
        "image has a wrong type", f"it is a {type(value).__name__}; expected {{bytes, path}}, bytes, a path, or a data URI"
    )


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise RowError("image is empty", "it has 0 bytes; expected the file of an image")
    return data


def _read_image(text: str, folders: Sequence[Path]) -> bytes:
    if not text:
        raise RowError("image is null", "its path is empty; expected a path or bytes")
    if text.startswith("data:"):
        try:
            return _not_empty(base64.b64decode(text.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise RowError("image is no base64", f"the data URI starts {text[:40]!r}: {error}") from error
    if text.startswith(("http://", "https://")):
        raise RowError(
            "image is an address", f"{text[:200]!r} is not downloaded while training; download it and give its path"
        )
    if _NAME.fullmatch(text) and (stored := _in_store(text, folders)) is not None:
        return _not_empty(stored)
    text = text.removeprefix("file://")
    tried = [Path(text)] if Path(text).is_absolute() else [folder / text for folder in folders]
    for path in tried:
        try:
            return _not_empty(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise RowError("image cannot be read", f"{path}: {error}") from error
    raise RowError(
        "image is missing",
        f"{text!r} is not there; looked for {', '.join(map(str, tried))}. Set run.image_roots to the folder that it is "
        "relative to",
    )


def _in_store(name: str, folders: Sequence[Path]) -> bytes | None:
    """An image by its name, in the store that a folder lies in; None if none of them lies in one."""
    stores = [store for folder in folders if (store := store_of(folder)) is not None]
    for store in stores:
        try:
            return ImageLibrary(store).get(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RowError("image cannot be read", f"{name} of the store {store}: {error}") from error
    if stores:
        raise RowError("image is missing", f"the store {stores[0]} has no image {name}; prepare the set again")
    return None
