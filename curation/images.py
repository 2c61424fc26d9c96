"""Work on many images, in several processes where there is enough of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from agent.image_hashes import image_hash
from agent.image_library import ImageLibrary
from agent.images import ImageFile, UnreadableImage

_FEW = 256
"""A process takes a second to start; so many images are done by then."""
T = TypeVar("T")


def of_each(names: Iterable[str], library: ImageLibrary, do: Callable[[Path], T], *, workers: int) -> dict[str, T]:
    """What a function makes of each image, by its name in the store."""
    wanted = list(dict.fromkeys(names))
    paths = [Path(library.path(name)) for name in wanted]
    if workers < 2 or len(wanted) < _FEW:
        return dict(zip(wanted, map(do, paths), strict=True))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return dict(zip(wanted, pool.map(do, paths, chunksize=32), strict=True))


def perceptual_hash(path: Path) -> int | None:
    """See agent/image_hashes.py; None also for a file that is gone."""
    try:
        return image_hash(path.read_bytes())
    except OSError:
        return None


def fault(path: Path) -> str:
    """Why the whole file cannot be decoded; empty if it can."""
    try:
        image = ImageFile(path.read_bytes())
        # Decoded to its end: a header says nothing about what a cut-off file lacks, and some decoders fill it with grey.
        image.pil()
    except (OSError, UnreadableImage) as error:
        return str(error)
    return ""
