"""Images between agent workers and training ranks: a row carries references, and a rank makes the pixels.

verl's agent worker runs the model's processor over each trajectory and sends `pixel_values`, 4.7 kB a patch, through the
queue to every rank that wants the row. Here it sends 56 bytes an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tensordict import NonTensorStack

from reinforcement_learning.verl_adapter.image_store import BackgroundCache, ImageRef, ImageStore, run_store
from reinforcement_learning.verl_adapter.images import PatchGrid, pixels_of

REFS = "image_refs"
"""The key in `multi_modal_inputs`, beside `image_grid_thw` and `images_seqlens`."""
PIXEL_CACHE_BYTES = 2 << 30
"""Of a training rank, in host memory; a 2-megapixel image takes 47 MB."""
_THREADS = 4
_NO_STEP = -1


def pack_refs(refs: Sequence[ImageRef]) -> torch.Tensor:
    """References as a tensor, which verl concatenates over rows like any other input of the model.

    Returns:
        int64 [num_images, 7]: the SHA-256 in four words, step or -1, width and height in pixels.
    """
    rows = []
    for ref in refs:
        step, _, sha256 = ref.name.rpartition("/")
        digest = bytes.fromhex(sha256)
        words = [int.from_bytes(digest[at : at + 8], "little", signed=True) for at in range(0, 32, 8)]
        rows.append([*words, int(step) if step else _NO_STEP, ref.width_px, ref.height_px])
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 7)


def unpack_refs(packed: torch.Tensor) -> list[ImageRef]:
    """The references that `pack_refs` packed: int64 [num_images, 7]."""
    refs = []
    for *words, step, width_px, height_px in packed.tolist():
        sha256 = b"".join(word.to_bytes(8, "little", signed=True) for word in words).hex()
        refs.append(ImageRef(sha256 if step == _NO_STEP else f"{step}/{sha256}", width_px, height_px))
    return refs


def reference_inputs(refs: Sequence[ImageRef], processor: Any) -> dict[str, torch.Tensor]:
    """What a row holds in place of pixels.

    Args:
        refs: Of its images.
        processor: The model's.

    Returns:
        `image_refs` int64 [num_images, 7], `image_grid_thw` int64 [num_images, 3] and `images_seqlens` int64 [num_images] as
        verl makes them from the processor's output; nothing for a row without images.
    """
    if not refs:
        return {}
    grid = PatchGrid(processor)
    grids = torch.tensor([grid.of(ref) for ref in refs], dtype=torch.int64)
    return {REFS: pack_refs(refs), "image_grid_thw": grids, "images_seqlens": grids[:, 1] * grids[:, 2]}


class SendsReferences:
    """A mixin of verl's agent worker: no processor call on its event loop, no pixels in the queue."""

    processor: Any

    def _compute_multi_modal_inputs(self, output: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        refs = (output.multi_modal_data or {}).get("images") or []
        inputs: dict[str, Any] = dict(reference_inputs(refs, self.processor))
        # verl takes this out again; its being there asks for position ids by token type (transformers >= 5.3).
        inputs["mm_token_type_ids"] = True
        return inputs


class PixelSource:
    """Makes `pixel_values` from references with the model's own image processor.

    Args:
        image_processor: The model's.
        store: Where the files are.
        max_bytes: Of pixels that are kept for the next pass over the same rows.
    """

    def __init__(self, image_processor: Any, store: ImageStore, *, max_bytes: int = PIXEL_CACHE_BYTES) -> None:
        self._image_processor = image_processor
        self._store = store
        self._bytes_a_patch = 4 * 3 * image_processor.temporal_patch_size * image_processor.patch_size**2
        self.cache: BackgroundCache[ImageRef, torch.Tensor] = BackgroundCache(
            self._make, lambda pixels: pixels.numel() * pixels.element_size(), max_bytes=max_bytes, threads=_THREADS
        )

    def _make(self, ref: ImageRef) -> torch.Tensor:
        image = pixels_of(self._store.get(ref.name), ref)
        pixels: torch.Tensor = self._image_processor(images=[image], return_tensors="pt")["pixel_values"]
        return pixels

    def pixel_values(self, packed: torch.Tensor) -> torch.Tensor:
        """The pixels of images in their order.

        Args:
            packed: int64 [num_images, 7].

        Returns:
            float32 [num_patches of all images, 3 * temporal_patch * patch * patch].

        Raises:
            ImageMissing: A file is not in the store.
        """
        futures = [self.cache.submit(ref) for ref in unpack_refs(packed)]
        return torch.cat([future.result() for future in futures], dim=0)

    def prefetch(self, rows: Any) -> None:
        """Begin with the images of the rows that come next, as many as can be kept.

        Args:
            rows: `multi_modal_inputs` of a TensorDict, or a list of those of each row.
        """
        room = self.cache.max_bytes
        for row in _dicts(rows):
            if REFS not in row:
                continue
            for ref, patches in zip(unpack_refs(row[REFS]), row["images_seqlens"].tolist(), strict=True):
                room -= patches * self._bytes_a_patch
                if room < 0:
                    return
                self.cache.submit(ref)


def _dicts(rows: Any) -> Iterator[dict[str, Any]]:
    # Rows that are all alike may be one value, which would be iterated over without end.
    for row in rows if isinstance(rows, list | NonTensorStack) else [rows]:
        # A row of a TensorDict comes wrapped or bare; a padding row has no images.
        found = getattr(row, "data", row)
        if isinstance(found, dict):
            yield found


class MakesPixels:
    """A mixin of verl's training engines: pixels are made on the rank, in threads, ahead of their micro-batches."""

    model_config: Any
    _pixel_source: PixelSource | None = None

    @property
    def pixel_source(self) -> PixelSource:
        """Opened at the first image; a model without images never opens it."""
        if self._pixel_source is None:
            self._pixel_source = PixelSource(self.model_config.processor.image_processor, run_store())
        return self._pixel_source

    def forward_backward_batch(self, data: Any, loss_function: Any, forward_only: bool = False) -> Any:
        """Do what verl's does, with the images of all micro-batches begun first."""
        rows = data.get("multi_modal_inputs", None)
        if rows is not None and any(REFS in row for row in _dicts(rows)):
            self.pixel_source.prefetch(rows)
        return super().forward_backward_batch(data, loss_function, forward_only=forward_only)  # type: ignore[misc]

    def prepare_model_inputs(self, micro_batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do what verl's does, with `pixel_values` in place of references."""
        inputs, output_arguments = super().prepare_model_inputs(micro_batch)  # type: ignore[misc]
        packed = inputs.pop(REFS, None)
        if packed is not None:
            inputs["pixel_values"] = self.pixel_source.pixel_values(packed)
        return inputs, output_arguments
