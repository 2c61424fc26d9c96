"""Images of the conversations under way: uploaded ones before they are asked about, and what tools have shown."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.images import ImageFile

_MOST_BYTES = 2 << 30


class ShelfFull(RuntimeError):
    """There is no room for more images until the server is started again; the message says so."""


class ImageShelf:
    """Keeps images in a folder of its own, which goes with it. May be used by several threads.

    Args:
        most_bytes: All images together.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = TemporaryDirectory(prefix="deepeyes-chat-", ignore_cleanup_errors=True)
        self._left = most_bytes
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, image: ImageFile) -> None:
        """Keep an image that may be there already.

        Raises:
            ShelfFull: There is no room for it.
        """
        with self._lock:
            if image.sha256 in self._known:
                return
            if len(image.data) > self._left:
                raise ShelfFull("this server keeps no more images; start it again, or ask without this one")
            self._path(image.sha256).write_bytes(image.data)
            self._known.add(image.sha256)
            self._left -= len(image.data)

    def get(self, sha256: str) -> ImageFile | None:
        """The image of that name, if it is there."""
        return ImageFile(self._path(sha256).read_bytes()) if sha256 in self._known else None

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    def _path(self, sha256: str) -> Path:
        return Path(self._folder.name) / sha256
