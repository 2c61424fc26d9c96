"""Images of a store's sets whose sizes their rows tell: nobody need open them to count them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary, store_of
from agent.images import ImageFile

_NAME = re.compile(r"[0-9a-f]{64}")


class StoredImage(ImageFile):
    """An image whose name and size are known; its bytes are read when they are asked for.

    Args:
        path: Of the file, which is called by its sha256.
        size: (width_px, height_px), upright.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_size", size)
        object.__setattr__(self, "sha256", path.name)

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """The file's bytes.

        Raises:
            OSError: It is not there any more.
        """
        path: Path = object.__getattribute__(self, "_path")
        return path.read_bytes()

    @property
    def size(self) -> tuple[int, int]:
        """Its size, taken from the row."""
        size: tuple[int, int] = object.__getattribute__(self, "_size")
        return size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageFile) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


def stored_images(row: Mapping[str, Any], folder: Path) -> tuple[StoredImage, ...] | None:
    """The images of a row, unread; None unless all of them are there in a store, with a size each.

    Args:
        row: With `images`, by name or by their path in the store, and `image_sizes`.
        folder: Of its file.
    """
    given, sizes, store = row.get("images"), row.get("image_sizes"), store_of(folder)
    if store is None or not isinstance(given, list) or not isinstance(sizes, list) or len(given) != len(sizes):
        return None
    library = ImageLibrary(store)
    found: list[StoredImage] = []
    for image, size in zip(given, sizes, strict=True):
        name = image.rpartition("/")[2] if isinstance(image, str) else ""
        if not _NAME.fullmatch(name) or not _is_size(size) or not library.has(name):
            return None
        path = library.path(name)
        if image != name and (folder / image).resolve() != path.resolve():
            return None
        found.append(StoredImage(path, (size[0], size[1])))
    return tuple(found)


def _is_size(size: Any) -> bool:
    return isinstance(size, Sequence) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
