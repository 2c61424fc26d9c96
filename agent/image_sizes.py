"""Sizes of images: how Qwen-VL models choose one, and what is done before for shapes that they do not take."""

from __future__ import annotations

import math

MAX_ASPECT = 200
_MIN_SIDE_PX = 32
_SQUEEZED_ASPECT = 150


def smart_resize(width_px: int, height_px: int, *, factor_px: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size that the image processor of a Qwen-VL model gives an image; the same in Qwen2-VL, 2.5 and 3.

    Args:
        width_px: At least 1.
        height_px: At least 1; neither side more than 200 times the other.
        factor_px: What both sides are to be multiples of.
        min_pixels: Width times height, at least.
        max_pixels: Width times height, at most.

    Returns:
        (width_px, height_px).

    Raises:
        ValueError: The aspect is above 200.

    Source: transformers 5.5.4, models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize; it too rounds halves to even.
    """
    if max(width_px, height_px) / min(width_px, height_px) > MAX_ASPECT:
        raise ValueError(f"an image of {width_px}x{height_px} px has an aspect above {MAX_ASPECT}")
    wide, high = round(width_px / factor_px) * factor_px, round(height_px / factor_px) * factor_px
    if wide * high > max_pixels:
        shrink_by = math.sqrt(width_px * height_px / max_pixels)
        wide, high = (max(factor_px, _floor(side_px / shrink_by, factor_px)) for side_px in (width_px, height_px))
    elif wide * high < min_pixels:
        grow_by = math.sqrt(min_pixels / (width_px * height_px))
        wide, high = (math.ceil(side_px * grow_by / factor_px) * factor_px for side_px in (width_px, height_px))
    return wide, high


def _floor(side_px: float, factor_px: int) -> int:
    return math.floor(side_px / factor_px) * factor_px


def observation_size(width_px: int, height_px: int) -> tuple[int, int]:
    """The size to which an image of extreme shape is brought before it is put on the grid.

    An aspect above 200 has its long side squeezed to min(150, ratio / 2) times the short one; then a side under 32 px
    is brought up to 32 px with the other in proportion.

    Args:
        width_px: At least 1.
        height_px: At least 1.

    Returns:
        (width_px, height_px); unchanged for ordinary images.

    Raises:
        ValueError: A side is 0.

    Source: DeepEyesV2 0373e6e, envs/deepeyesv2/deepeyesv2.py:367-398 (maybe_resize_image).
    """
    if min(width_px, height_px) < 1:
        raise ValueError(f"an image of {width_px}x{height_px} px has no pixels")
    aspect = max(width_px, height_px) / min(width_px, height_px)
    if aspect > MAX_ASPECT:
        long_px = int(min(_SQUEEZED_ASPECT, aspect / 2) * min(width_px, height_px))
        width_px, height_px = (long_px, height_px) if width_px > height_px else (width_px, long_px)
    if min(width_px, height_px) < _MIN_SIDE_PX:
        scale = _MIN_SIDE_PX / min(width_px, height_px)
        width_px, height_px = math.ceil(width_px * scale), math.ceil(height_px * scale)
    return width_px, height_px


def nearest_size(width_px: int, height_px: int, *, factor_px: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size on the grid and within the limits whose shape is nearest; arguments as of `smart_resize`.

    For limits so close to each other that `smart_resize` goes to and fro between sizes below and above them.
    """
    least, most = -(-min_pixels // factor_px**2), max_pixels // factor_px**2
    wanted = width_px / height_px
    found: list[tuple[float, int, int, int]] = []
    for rows in range(1, most + 1):
        fewest = max(-(-least // rows), -(-rows // MAX_ASPECT))
        columns = max(fewest, min(round(rows * wanted), most // rows, MAX_ASPECT * rows))
        if rows * columns <= most:
            found.append((abs(math.log(columns / rows / wanted)), -rows * columns, columns, rows))
    _, _, columns, rows = min(found)
    return columns * factor_px, rows * factor_px
