"""Nearest images of a folder: by perceptual hash and, with a model, by embedding. For `image_search` without a network.

A perceptual hash finds the same picture at another size or quality, not the same thing in another picture; for that name
an `embedding_model`: an ONNX file of an image encoder such as CLIP's, input [1, 3, side, side], output [1, dim].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from agent.files import write_whole
from agent.images import ImageFile, UnreadableImage
from agent.search import ImageHit
from agent.search.web import WebClient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_HASH_SIDE = 16
_CACHE = ".deepeyes-images.json"


class Settings(BaseModel):
    """`provider: local_images`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(exclude=True)
    """A folder of images; `titles.jsonl` in it gives `{"file": …, "title": …}`, else the file's name is the title."""
    corpus: str = ""
    """A name for what is in the folder, if searches are recorded."""
    embedding_model: Path | None = None
    """An ONNX file; None searches by perceptual hash."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Of the encoder's input, by channel; CLIP's by default, as are the next."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    max_distance: int = Field(90, ge=0, le=_HASH_SIDE**2)
    """Differing bits of 256 up to which two hashes are of the same picture."""
    min_similarity: float = Field(0.0, ge=-1, le=1)
    """Cosine of two embeddings from which on they are alike."""


class Provider:
    """One folder. Hashes and embeddings are kept in a file beside the images and made anew for files that changed."""

    def __init__(self, settings: Settings, web: WebClient | None = None) -> None:
        if not settings.path.is_dir():
            raise FileNotFoundError(f"no folder of images at {settings.path}")
        self._settings = settings
        self._embedder = _Embedder(settings) if settings.embedding_model else None
        self._lock = threading.Lock()
        self._files: list[tuple[Path, str]] = []
        self._vectors: NDArray[np.float32] | None = None

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        """The nearest images first; the very same file is found too."""
        return await asyncio.to_thread(self._search, image, max_hits)

    def _search(self, image: ImageFile, max_hits: int) -> list[ImageHit]:
        import numpy as np

        with self._lock:
            if self._vectors is None:
                self._load()
        assert self._vectors is not None
        if not self._files:
            return []
        vector = self._vector(image)
        if self._embedder is None:
            distances = np.count_nonzero(self._vectors != vector, axis=1).astype(np.float32)
            limit = float(self._settings.max_distance)
        else:
            distances, limit = 1 - self._vectors @ vector, 1 - self._settings.min_similarity
        nearest = np.argsort(distances, kind="stable")[:max_hits]
        return [
            ImageHit(title, ImageFile(path.read_bytes()))
            for path, title in (self._files[index] for index in nearest if distances[index] <= limit)
        ]

    def _vector(self, image: ImageFile) -> NDArray[np.float32]:
        import numpy as np

        if self._embedder is not None:
            return self._embedder(image)
        try:
            import imagehash
        except ImportError as error:
            raise ValueError("provider local_images needs the package ImageHash: pip install 'deepeyes[search]'") from error
        found: NDArray[np.float32] = imagehash.phash(image.pil(), hash_size=_HASH_SIDE).hash.ravel().astype(np.float32)
        return found

    def _load(self) -> None:
        import numpy as np

        cache_path = self._settings.path / _CACHE
        method = self._settings.embedding_model.name if self._settings.embedding_model else "phash"
        known = _read_cache(cache_path, method)
        titles = _titles(self._settings.path)
        fresh: dict[str, Any] = {}
        vectors = []
        for path in _images(self._settings.path):
            name, stat = path.relative_to(self._settings.path).as_posix(), path.stat()
            entry = known.get(name)
            if entry is None or entry["stamp"] != [stat.st_mtime_ns, stat.st_size]:
                try:
                    vector = self._vector(ImageFile(path.read_bytes()))
                except UnreadableImage:
                    continue  # a broken file is not a reason to find nothing
                entry = {"stamp": [stat.st_mtime_ns, stat.st_size], "vector": [round(float(x), 6) for x in vector]}
            fresh[name] = entry
            self._files.append((path, titles.get(name, path.stem.replace("_", " "))))
            vectors.append(entry["vector"])
        self._vectors = np.asarray(vectors, np.float32)
        if fresh != known:
            with contextlib.suppress(OSError):  # a read-only folder is read again the next time
                write_whole(cache_path, json.dumps({"method": method, "images": fresh}))


class _Embedder:
    """An image encoder in ONNX, on the CPU."""

    def __init__(self, settings: Settings) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError("embedding_model needs the package onnxruntime: pip install 'deepeyes[search]'") from error
        if not settings.embedding_model or not settings.embedding_model.is_file():
            raise FileNotFoundError(f"no ONNX model at {settings.embedding_model}")
        self._model = onnxruntime.InferenceSession(str(settings.embedding_model), providers=["CPUExecutionProvider"])
        wanted = self._model.get_inputs()[0]
        if len(wanted.shape) != 4 or not isinstance(wanted.shape[-1], int):
            raise ValueError(f"{settings.embedding_model} takes {wanted.shape}; expected one input of [1, 3, side, side]")
        self._name, self._side = wanted.name, wanted.shape[-1]
        self._mean, self._std = settings.mean, settings.std

    def __call__(self, image: ImageFile) -> NDArray[np.float32]:
        import numpy as np

        pixels = np.asarray(image.pil().resize((self._side, self._side)), np.float32) / 255  # [side, side, 3]
        pixels = ((pixels - np.array(self._mean, np.float32)) / np.array(self._std, np.float32)).transpose(2, 0, 1)[
            None
        ]  # [1, 3, side, side]
        vector = np.asarray(self._model.run(None, {self._name: pixels})[0], np.float32).ravel()  # [dim]
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _images(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES)


def _titles(directory: Path) -> dict[str, str]:
    path = directory / "titles.jsonl"
    if not path.exists():
        return {}
    titles = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            titles[str(row["file"])] = str(row["title"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}:{number} is no title; expected {{"file": "a.png", "title": "…"}}') from error
    return titles


def _read_cache(path: Path, method: str) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        images: dict[str, Any] = saved["images"] if saved["method"] == method else {}
        return images
    except (OSError, ValueError, LookupError, TypeError):
        return {}
