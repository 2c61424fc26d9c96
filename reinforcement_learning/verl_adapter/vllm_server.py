"""vLLM's rollout server that takes references to images: `RolloutReplicaRegistry`.

verl's server is handed PIL images at every turn, hashes them and, on a miss, processes them on one thread. This one reads
the files itself, decodes each once, and tells vLLM their names, so that its caches of processed inputs, of image features
and of prefixes hit without hashing pixels. verl empties all three when it hands over new weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import ray
from PIL import Image
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from agent.errors import EpisodeFailure
from agent.images import UnreadableImage
from reinforcement_learning.verl_adapter.image_store import BackgroundCache, ImageRef, run_store
from reinforcement_learning.verl_adapter.images import pixels_of

DECODED_BYTES = 1 << 30
"""Decoded images that a server keeps; one of 2 megapixels takes 6 MB."""
PROCESSOR_CACHE_GB = 4
"""vLLM's cache of processed images. verl turns it off for vLLM below 0.22; a recipe's own value wins."""
_THREADS = 4


class NamedImages(list[Image.Image]):
    """Pixels with the identity that vLLM is to know each by."""

    def __init__(self, images: Iterable[Image.Image], keys: Iterable[str]) -> None:
        super().__init__(images)
        self.keys = list(keys)


class _NamingEngine:
    """vLLM's engine, told the names of images; verl's server has no argument for them."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompt: Any, **options: Any) -> Any:
        images = (prompt.get("multi_modal_data") or {}).get("image")
        if isinstance(images, NamedImages):
            prompt["multi_modal_uuids"] = {"image": images.keys}
        return self._engine.generate(prompt=prompt, **options)


class EpisodeServer(vLLMHttpServer):  # type: ignore[misc]
    """verl's server with images by reference."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pixels: BackgroundCache[ImageRef, Image.Image] = BackgroundCache(
            _decoded, lambda image: image.width * image.height * 3, max_bytes=DECODED_BYTES, threads=_THREADS
        )

    async def run_server(self, args: Any) -> None:
        """Do what verl's does."""
        await super().run_server(args)
        self.engine: Any = _NamingEngine(self.engine)

    async def generate(self, *args: Any, image_data: list[Any] | None = None, **kwargs: Any) -> Any:
        """Do what verl's does; `image_data` may be references.

        Raises:
            EpisodeFailure: An image is missing or broken.
        """
        if image_data and all(isinstance(image, ImageRef) for image in image_data):
            # A future is shared by all who wait for the image, so none of them may cancel it.
            waiting = [asyncio.shield(asyncio.wrap_future(self._pixels.submit(ref))) for ref in image_data]
            image_data = NamedImages(await asyncio.gather(*waiting), [ref.key for ref in image_data])
        return await super().generate(*args, image_data=image_data, **kwargs)

    def _preprocess_engine_kwargs(self, engine_kwargs: dict[str, Any]) -> None:
        engine_kwargs.setdefault("mm_processor_cache_gb", PROCESSOR_CACHE_GB)
        super()._preprocess_engine_kwargs(engine_kwargs)


def _decoded(ref: ImageRef) -> Image.Image:
    try:
        return pixels_of(run_store().get(ref.name), ref)
    except UnreadableImage as error:
        raise EpisodeFailure(f"image {ref.name}: {error}") from error


class EpisodeReplica(vLLMReplica):  # type: ignore[misc]
    """Starts `EpisodeServer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(EpisodeServer)


def register() -> None:
    """Make this the replica of `rollout.name: vllm`, in the process that starts the replicas."""
    replica: type[RolloutReplica] = EpisodeReplica
    RolloutReplicaRegistry.register("vllm", lambda: replica)
