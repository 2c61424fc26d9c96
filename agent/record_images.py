"""Where the images of recorded episodes lie, and how they come there. A record names them by the SHA-256 of their bytes.

    <records>/images/<sha256>        or <first two digits>/<sha256>
    <records>/previews/<sha256>      instead of an image that was too large to be recorded as it is
    <records>/image_stores.json      {"stores": […]}: stores of data (agent/image_library.py) in which others of them lie
    <records>/../images              the store of an RL run

An image that one of these has is not written again. Where the run's data lies in a store, what is new goes into that too:
the crops of all its runs lie there once, beside the questions' images, and a set that is made of the records needs no copy.
A store that cannot be written to is no obstacle: images then lie beside the records, as without one.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent.files import write_whole
from agent.image_library import ImageLibrary, store_of
from agent.images import ImageFile, UnreadableImage, preview

_log = logging.getLogger(__name__)
MOST_IMAGE_BYTES = 64 << 20
"""Of an image of a record, which may be somebody else's."""
STORES = "image_stores.json"
IN_DATA, IN_RUN = "data", "run"
"""What settings say in place of a store's folder: the store of the run's data, or beside the records."""
_PREVIEWS = "previews"
_HASH = re.compile(r"[0-9a-f]{64}")


def record_store(said: str, data: Iterable[str | Path]) -> Path | None:
    """The store that takes the images of a run's records; None if they lie beside the records.

    Args:
        said: `data`, `run`, or a store's folder.
        data: The files that the run reads; the first that lies in a store decides.

    Raises:
        ValueError: The folder is no store.
    """
    if said == IN_RUN:
        return None
    if said == IN_DATA:
        return next((store for path in data if (store := store_of(Path(path).parent)) is not None), None)
    store = store_of(Path(said))
    if store is None:
        raise ValueError(
            f"{said!r} is no store of images: there is no store.json; expected {IN_DATA}, {IN_RUN}, or a folder that "
            "`deepeyes data prepare … --out` has made"
        )
    return store


class RecordImages:
    """Keeps the images of records.

    Args:
        directory: Of the records.
        fanned: Whether images lie in 256 folders: a training run makes too many for one.
        run_store: The run's store of its data's images, as <first two digits>/<sha256>.
        store: A store of data, which takes the images.
        max_pixels: Of an image, width times height; of a larger one a JPEG of at most so many is kept, unless a store has
            the image anyway. None keeps every image as it is.
        say: Is told, once, when the store cannot be written to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fanned: bool,
        run_store: Path | None = None,
        store: Path | None = None,
        max_pixels: int | None = None,
        say: Callable[[str], object] = _log.warning,
    ) -> None:
        self._directory, self._fanned, self._run_store, self._max_pixels = directory, fanned, run_store, max_pixels
        self._library = None if store is None else ImageLibrary(store.resolve())
        self._takes, self._say = True, say
        (directory / "images").mkdir(parents=True, exist_ok=True)
        if self._library is not None:
            _name_store(directory, self._library.root)

    def keep(self, image: ImageFile) -> None:
        """Have an image where `image_path` finds it.

        Raises:
            NotWritten: There is no room beside the records either.
        """
        folder = self._directory / "images"
        path = _fanned_out(folder, image.sha256) if self._fanned else folder / image.sha256
        if path.exists() or (self._run_store is not None and _fanned_out(self._run_store, image.sha256).exists()):
            return
        if self._library is not None and self._library.has(image.sha256, len(image.data)):
            return
        if self._max_pixels is not None:
            try:
                small = preview(image, self._max_pixels)
            except UnreadableImage:
                small = image
            if small is not image:
                path = self._directory / _PREVIEWS / image.sha256
                if not path.exists():
                    write_whole(path, small.data)
                return
        if not self._put(image):
            write_whole(path, image.data)

    def _put(self, image: ImageFile) -> bool:
        if self._library is None or not self._takes:
            return False
        try:
            self._library.put(image.data, durable=False)
        except OSError as error:
            self._takes = False
            self._say(f"{error}; images of the records go into {self._directory / 'images'}")
            return False
        return True


def _name_store(directory: Path, store: Path) -> None:
    """Note that images of the records lie in a store, by its place and by the way to it, so that both may be moved."""
    known = _entries(directory)
    entry = {"path": str(store), "from_here": os.path.relpath(store, directory.resolve())}
    if entry not in known:
        write_whole(directory / STORES, json.dumps({"stores": [*known, entry]}, indent=1))


def _entries(directory: Path) -> list[dict[str, str]]:
    """What is noted; a note that is damaged, or somebody else's joke, names no store."""
    try:
        said: Any = json.loads((directory / STORES).read_text(encoding="utf-8"))
        return [{"path": str(one["path"]), "from_here": str(one["from_here"])} for one in said["stores"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _stores(directory: Path) -> tuple[list[Path], list[str]]:
    """(stores that are named and there, places of those that are not)."""
    there: list[Path] = []
    missing: list[str] = []
    for entry in _entries(directory):
        places = (Path(entry["path"]), directory.resolve() / entry["from_here"])
        found = next((place for place in places if "\0" not in str(place) and (place / "store.json").is_file()), None)
        if found is None:
            missing.append(entry["path"])
        else:
            there.append(found)
    return there, missing


def missing_stores(directory: Path) -> str:
    """One line on stores with images of these records that are not where they were; empty if all are there."""
    missing = _stores(directory)[1]
    if not missing:
        return ""
    return (
        f"images of {directory} lie in the store {' and '.join(missing)}, which is not there: bring it, or write where "
        f"it is now into {directory / STORES}"
    )


def image_path(directory: Path, sha256: str) -> Path:
    """Where an image of a recorded episode lies: beside the records, in a store, or as a preview.

    A record may be somebody else's: what is no content hash names no image, and a link leads nowhere.

    Raises:
        FileNotFoundError: Nowhere; the message says where it was expected, or which store is missing.
    """
    if _HASH.fullmatch(sha256) is None:
        raise FileNotFoundError(f"{sha256[:100]!r} names no image; expected a sha256 in hexadecimal")
    places = [
        directory / "images" / sha256,
        _fanned_out(directory / "images", sha256),
        _fanned_out(directory.parent / "images", sha256),
    ]
    previews = directory / _PREVIEWS / sha256
    if (found := _first(places)) is not None:
        return found
    stores, _ = _stores(directory)
    if (found := _first([*(_fanned_out(store / "images", sha256) for store in stores), previews])) is not None:
        return found
    folders = [str(directory / "images"), *(str(store / "images") for store in stores)]
    why = missing_stores(directory) or f"expected it in {' or '.join(folders)}"
    raise FileNotFoundError(f"no image {sha256} for the episodes in {directory}; {why}")


def _fanned_out(folder: Path, sha256: str) -> Path:
    return folder / sha256[:2] / sha256


def _first(places: Iterable[Path]) -> Path | None:
    return next((path for path in places if path.is_file() and not path.is_symlink()), None)


class RecordedImage(ImageFile):
    """An image of a record: its name is known, its bytes are read when they are asked for.

    The name is that of the image that was recorded, also where only a preview of it was kept.
    """

    def __init__(self, directory: Path, sha256: str) -> None:
        object.__setattr__(self, "_directory", directory)
        object.__setattr__(self, "sha256", sha256)

    @functools.cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """The file's bytes.

        Raises:
            FileNotFoundError: It is not there any more.
            UnreadableImage: The file is larger than an image of a record is.
        """
        directory: Path = object.__getattribute__(self, "_directory")
        path = image_path(directory, self.sha256)
        if (size := path.stat().st_size) > MOST_IMAGE_BYTES:
            raise UnreadableImage(f"{path} has {size:,} bytes; at most {MOST_IMAGE_BYTES:,} are read")
        return path.read_bytes()

    @property
    def is_preview(self) -> bool:
        """Whether of a larger image only this was kept.

        Raises:
            FileNotFoundError: It is not there any more.
        """
        return image_path(object.__getattribute__(self, "_directory"), self.sha256).parent.name == _PREVIEWS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageFile) and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.data,))
