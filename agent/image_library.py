"""Image files by the sha256 of their bytes, in a store that sets of data share.

STORE/store.json                       {"format": 1}: marks the folder as a store
STORE/images/<2 hex>/<sha256>          the original file's bytes, read-only, written aside and renamed
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path

_FORMAT = 1
_NAME = re.compile(r"[0-9a-f]{64}")


class ImageLibrary:
    """The images of a store.

    Args:
        root: The store's folder; made when the first image is put into it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where an image lies, or would.

        Raises:
            ValueError: The name is no sha256.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} names no image of a store; expected the 64 hex digits of its sha256")
        return self.root / "images" / name[:2] / name

    def put(self, data: bytes) -> str:
        """Keep a file, unless it is there; its name.

        Raises:
            OSError: There is no room.
        """
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        if path.exists() and path.stat().st_size == len(data):  # another size is what a power cut left
            return name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(0o444)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return name

    def get(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            ValueError: The name is no sha256.
            FileNotFoundError: It is not there; the message says what to do.
        """
        path = self.path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the store {self.root} has no image {name}; prepare the set again") from error


def open_library(store: Path) -> ImageLibrary:
    """The images of a store; a folder that is none yet becomes one.

    Raises:
        ValueError: It is a store of another format, or no readable one.
        OSError: It cannot be written.
    """
    note = store / "store.json"
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        store.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(f".{note.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.partial")
        partial.write_text(json.dumps({"format": _FORMAT}), encoding="utf-8")
        partial.replace(note)
        return ImageLibrary(store)
    except ValueError as error:
        raise ValueError(f"{note} is no JSON ({error}); write {json.dumps({'format': _FORMAT})} if it is a store") from error
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        raise ValueError(f"{note} says {str(said)[:80]}; this version reads format {_FORMAT}; give another folder")
    return ImageLibrary(store)


def store_of(folder: Path) -> Path | None:
    """The store that a folder is, or lies in."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if (place / "store.json").is_file()), None)
