"""Work on many images, in several processes where there is enough of it, or over a Ray cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeVar

from agent.image_hashes import image_hash
from agent.image_library import ImageLibrary
from agent.images import ImageFile, UnreadableImage
from curation.on_ray import over_ray

_FEW = 256
"""A process takes a second to start; so many images are done by then."""
Workers = int | Literal["ray"]
"""Processes of this machine, or a cluster."""
T = TypeVar("T")


def of_each(names: Iterable[str], library: ImageLibrary, do: Callable[[Path], T], *, workers: Workers) -> dict[str, T]:
    """What a function makes of each image, by its name in the store.

    Raises:
        CurationError: There is no Ray, or one of its nodes cannot do the work.
    """
    wanted = list(dict.fromkeys(names))
    paths = [Path(library.path(name)) for name in wanted]
    if workers == "ray":
        return dict(zip(wanted, over_ray(paths, do) if paths else [], strict=True))
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
    """Why the whole file cannot be decoded, or is not the one of its name; empty if all is well."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.name:
            return "the store's file is not the one that was put into it; delete it, and read the sources again"
        image = ImageFile(data)
        # Decoded to its end: a header says nothing about what a cut-off file lacks, and some decoders fill it with grey.
        image.pil()
    except (OSError, UnreadableImage) as error:
        return str(error)
    return ""
