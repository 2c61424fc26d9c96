"""The images of a cold start: resized by the one rule before LLaMA-Factory sees them, which then resizes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.files import write_whole
from agent.images import ImageFile, ImageRule, UnreadableImage
from agent.recipes import RecipeError

COPY_BYTES_A_PIXEL = 2.0
"""Of a photo as PNG without loss, at most; drawings take a third."""


def write_images(paths: Iterable[str], directory: Path, rule: ImageRule) -> dict[str, str]:
    """Write a copy of every image that the rule changes, on all cores; one that is there already is not made again.

    Args:
        paths: Of the images, absolute; each once.
        directory: Gets `<first two hex>/<sha256 of the source>-<width>x<height>.png`.
        rule: What the model sees of an image.

    Returns:
        Where LLaMA-Factory is to read each: the copy, or the source itself where nothing had to change.

    Raises:
        RecipeError: An image cannot be read any more.
        OSError: A copy cannot be written.
    """
    ordered = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(ordered, pool.map(lambda path: _written(path, directory, rule), ordered), strict=True))


def _written(path: str, directory: Path, rule: ImageRule) -> str:
    try:
        image = ImageFile(Path(path).read_bytes())
        if rule.keeps(image):
            return path
        width_px, height_px = rule.size(*image.size)
        copy = directory / image.sha256[:2] / f"{image.sha256}-{width_px}x{height_px}.png"
        if not copy.is_file():
            shown = rule.apply(image)
            write_whole(copy, shown.data, durable=True)
    except UnreadableImage as error:
        raise RecipeError(f"{path} has changed since it was looked at: {error}; start again") from error
    return str(copy)
