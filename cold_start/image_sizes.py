"""What one image becomes in the cold start, in RL and in evaluation: three ways of resizing under one limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.images import shrunk_size

EXAMPLES = ((1024, 768), (1920, 1080))
"""(width_px, height_px) of the images that a dry run tells about."""
_FACTOR_PX = 28


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image as the model sees it."""

    width_px: int
    height_px: int

    @property
    def num_tokens(self) -> int:
        """One for each 28x28 px."""
        return self.width_px * self.height_px // _FACTOR_PX**2

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px} px, {self.num_tokens} tokens"


@dataclass(frozen=True, slots=True)
class ProcessorLimits:
    """Pixels that a model's own processor lets through."""

    min_pixels: int
    max_pixels: int


def in_rl(width_px: int, height_px: int, max_pixels: int | None, limits: ProcessorLimits) -> ShownImage:
    """As `agent.image_max_pixels` of an RL recipe: to whole patches within the limit at once, then the processor."""
    if max_pixels is not None and width_px * height_px > max_pixels:
        width_px, height_px = _to_patches(width_px, height_px, ProcessorLimits(limits.min_pixels, max_pixels))
    return ShownImage(*_to_patches(width_px, height_px, limits))


def in_evaluation(width_px: int, height_px: int, max_pixels: int | None, limits: ProcessorLimits) -> ShownImage:
    """As `--image-max-pixels` of an evaluation: in proportion within the limit, then the processor of the server."""
    return ShownImage(*_to_patches(*shrunk_size(width_px, height_px, max_pixels), limits))


def _to_patches(width_px: int, height_px: int, limits: ProcessorLimits) -> tuple[int, int]:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(height_px, width_px, _FACTOR_PX, min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)
    return width, height


def describe(
    in_cold_start: Callable[[int, int], tuple[int, int, int]],
    max_pixels: int,
    shared_max_pixels: int,
    limits: ProcessorLimits,
) -> list[str]:
    """A line for each of `EXAMPLES`.

    Args:
        in_cold_start: LLaMA-Factory's own way; `Pipeline.image_tokens`.
        max_pixels: `image_max_pixels` of the cold start.
        shared_max_pixels: `image_max_pixels` of agent/shared.yaml, which RL and evaluation go by.
        limits: Of the model's processor.
    """
    lines = []
    for size in EXAMPLES:
        ways = {
            "cold start": ShownImage(*in_cold_start(*size)[:2]),
            "RL": in_rl(*size, shared_max_pixels, limits),
            "evaluation": in_evaluation(*size, shared_max_pixels, limits),
        }
        shown = "; ".join(f"{name} {image}" for name, image in ways.items())
        lines.append(f"{size[0]}x{size[1]}: {shown}")
    # A processor that lets through no more than both makes them equal.
    if max_pixels != shared_max_pixels and limits.max_pixels > min(max_pixels, shared_max_pixels):
        lines.append(
            f"image_max_pixels is {max_pixels:,} here and {shared_max_pixels:,} in agent/shared.yaml; RL and evaluation of "
            "this model want agent.image_max_pixels and --image-max-pixels of the same number"
        )
    return lines
