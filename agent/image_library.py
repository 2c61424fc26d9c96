"""Image files by the sha256 of their bytes, in a store that sets of data share.

STORE/store.json                       {"format": 1}: marks the folder as a store
STORE/images/<2 hex>/<sha256>          the original file's bytes, read-only, written aside and renamed
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path

from agent.files import write_whole

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

    def has(self, name: str, num_bytes: int | None = None) -> bool:
        """Whether an image is there.

        Args:
            name: Its sha256.
            num_bytes: How long it is, where that is known: another length is what a power cut left.
        """
        try:
            size = self.path(name).stat().st_size
        except OSError:
            return False
        return num_bytes is None or size == num_bytes

    def put(self, data: bytes, *, durable: bool = True) -> str:
        """Keep a file, unless it is there; its name. Any number of processes on any number of machines may do so at once.

        Args:
            data: The file's bytes.
            durable: Be safe from a loss of power at once; whoever puts many settles the disk (agent/files.py) after them.

        Raises:
            NotWritten: There is no room, or the store cannot be written to.
        """
        name = hashlib.sha256(data).hexdigest()
        if not self.has(name, len(data)):
            write_whole(self.path(name), data, durable=durable, mode=0o444)
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
        write_whole(note, json.dumps({"format": _FORMAT}))
        return ImageLibrary(store)
    except ValueError as error:
        raise ValueError(f"{note} is no JSON ({error}); write {json.dumps({'format': _FORMAT})} if it is a store") from error
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        raise ValueError(f"{note} says {str(said)[:80]}; this version reads format {_FORMAT}; give another folder")
    return ImageLibrary(store)


def store_of(folder: Path) -> Path | None:
    """The store that a folder is, or lies in; where there is one, a process looks for it once."""
    try:
        return _store_above(folder.absolute())
    except LookupError:
        return None


@functools.lru_cache(maxsize=1024)
def _store_above(folder: Path) -> Path:
    """The store; that there is none is raised, so that it is not remembered: a folder may yet become one."""
    for place in (folder, *folder.parents):
        if (place / "store.json").is_file():
            return place
    raise LookupError(f"{folder} lies in no store")
