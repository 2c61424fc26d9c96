"""The bytes of every image of a run, once, by content: the rest of the run passes names.

    <run>/images/<first two hex>/<sha256>                 of the data set; kept
    <run>/images/steps/<step>/<first two hex>/<sha256>    made by rollouts of that step; removed some steps later

The directory is shared by all nodes. A file is written by whoever has the image first, under a partial name, and renamed, so
that a reader never sees half of it. Imports neither torch, verl nor ray.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from agent.errors import EpisodeFailure
from agent.files import write_whole
from agent.image_library import ImageLibrary

STORE_VARIABLE = "DEEPEYES_IMAGE_STORE"
KEPT_STEPS = 4
"""Images of this many past steps stay, for rollouts that outlive their step."""

_NAME = re.compile(r"(?:(\d+)/)?([0-9a-f]{64})")
_READS = 8
_FIRST_PAUSE_S = 0.05
_CACHE_BYTES = 256 << 20


class ImageMissing(EpisodeFailure):
    """No file of that name, or not with that content."""


class ImageRef(NamedTuple):
    """An image as the model sees it: its file, which the image rule has fitted, and its size."""

    name: str
    """As `ImageStore.put` gave it."""
    width_px: int
    height_px: int

    @property
    def key(self) -> str:
        """Equal for equal pixels, wherever the file lies."""
        return f"{self.name[-64:]}-{self.width_px}x{self.height_px}"


class ImageStore:
    """Files by content.

    Args:
        root: A directory that every node sees.
        cache_bytes: What this process keeps of the files it read.
    """

    def __init__(self, root: Path, *, cache_bytes: int = _CACHE_BYTES) -> None:
        self.root = root
        self._files: BoundedCache[str, bytes] = BoundedCache(len, max_bytes=cache_bytes)

    def put(self, data: bytes, *, step: int | None = None, library: ImageLibrary | None = None) -> str:
        """Write a file unless it is there.

        Args:
            data: An image file in any format.
            step: The training step whose rollouts made it; None for images of the data set, which stay.
            library: May have the file; it is then given a second name on that disk instead of a copy.

        Returns:
            Its name.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        name = sha256 if step is None else f"{step}/{sha256}"
        path = self.path(name)
        try:
            # A machine that lost power may have left an empty file behind the name.
            if path.stat().st_size == len(data):
                return name
        except FileNotFoundError:
            pass
        if library is None or not _linked(library, sha256, len(data), path):
            write_whole(path, data)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            ImageMissing: It is not there, or is not what its name says.
        """
        data = self._files.get(name)
        if data is None:
            data = self._read(name)
            self._files.put(name, data)
        return data

    def path(self, name: str) -> Path:
        """Where the file of that name lies.

        Raises:
            ImageMissing: It is no name of this store.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ImageMissing(
                f"{name!r} names no image; expected a SHA-256 in hex, with its step and a / before it if it has one"
            )
        step, sha256 = match.groups()
        folder = self.root if step is None else self.root / "steps" / step
        return folder / sha256[:2] / sha256

    def drop_steps(self, *, before: int | None = None) -> int:
        """Remove the images that rollouts of past steps made.

        Args:
            before: Steps below this number; None removes all, which is right only while no rollout runs.

        Returns:
            Number of steps whose images were removed.
        """
        steps = self.root / "steps"
        found = [entry for entry in steps.iterdir() if entry.name.isdecimal()] if steps.is_dir() else []
        old = [entry for entry in found if before is None or int(entry.name) < before]
        for entry in old:
            shutil.rmtree(entry, ignore_errors=True)
        return len(old)

    def drop_steps_later(self, *, before: int) -> None:
        """`drop_steps` in a thread: on a network file system thousands of files take seconds."""
        threading.Thread(target=self.drop_steps, kwargs={"before": before}, daemon=True).start()

    def _read(self, name: str) -> bytes:
        path, problem = self.path(name), ""
        # A network file system may take a moment to show another node's new file.
        for attempt in range(_READS):
            if attempt:
                time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                data = path.read_bytes()
            except OSError as error:
                problem = str(error)
                continue
            if hashlib.sha256(data).hexdigest() == name[-64:]:
                return data
            problem = f"its {len(data):,} bytes have another SHA-256 than its name"
        raise ImageMissing(
            f"image {path} cannot be read: {problem}. The run's directory must be one that all nodes share, and nothing but "
            "the trainer may remove files there"
        )


def _linked(library: ImageLibrary, name: str, num_bytes: int, path: Path) -> bool:
    """Whether a file of a store could be given a second name: not on another disk, nor on some that are somebody else's."""
    if not library.has(name, num_bytes):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(library.path(name), path)
    except OSError:
        return False
    return True


@functools.cache
def run_store() -> ImageStore:
    """The store of the run that this process belongs to.

    Raises:
        ValueError: The environment does not say where it is.
    """
    root = os.environ.get(STORE_VARIABLE)
    if not root:
        raise ValueError(
            f"{STORE_VARIABLE} is not set; `python -m reinforcement_learning.train` sets it for every process of a run"
        )
    return ImageStore(Path(root))


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """The values used last, as many as fit.

    Args:
        size_of: Bytes that a value takes.
        max_bytes: Of all values together. A value that is larger alone is not kept.
    """

    def __init__(self, size_of: Callable[[V], int], *, max_bytes: int) -> None:
        self._size_of = size_of
        self._max_bytes = max_bytes
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def get(self, key: K) -> V | None:
        """The value, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, and forget what was not used for longest."""
        with self._lock:
            known = self._values.pop(key, None)
            self.num_bytes -= 0 if known is None else self._size_of(known)
            if self._size_of(value) > self._max_bytes:
                return
            self._values[key] = value
            self.num_bytes += self._size_of(value)
            while self.num_bytes > self._max_bytes:
                _, oldest = self._values.popitem(last=False)
                self.num_bytes -= self._size_of(oldest)


class BackgroundCache(Generic[K, V]):
    """Makes values in threads, each once however many ask for it at a time, and keeps the last ones.

    Args:
        make: Called in a thread.
        size_of: Bytes that a value takes.
        max_bytes: Of the values that are kept.
        threads: Values made at a time.
    """

    def __init__(self, make: Callable[[K], V], size_of: Callable[[V], int], *, max_bytes: int, threads: int) -> None:
        self._make = make
        self._done: BoundedCache[K, V] = BoundedCache(size_of, max_bytes=max_bytes)
        self._running: dict[K, Future[V]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self.max_bytes = max_bytes
        self.num_made = 0

    @property
    def num_bytes(self) -> int:
        """The size of the values kept now."""
        return self._done.num_bytes

    def submit(self, key: K) -> Future[V]:
        """The value, now or later. The future is shared: nobody may cancel it."""
        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running
            value = self._done.get(key)
            if value is not None:
                future: Future[V] = Future()
                future.set_result(value)
                return future
            future = self._running[key] = self._pool.submit(self._run, key)
            return future

    def _run(self, key: K) -> V:
        try:
            value = self._make(key)
        except BaseException:
            with self._lock:
                del self._running[key]
            raise
        with self._lock:
            self.num_made += 1
            self._done.put(key, value)
            del self._running[key]
        return value
