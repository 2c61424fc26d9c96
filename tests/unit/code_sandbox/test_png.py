from __future__ import annotations

import io
import random

import cv2
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from code_sandbox.png import png


@given(
    st.sampled_from(["L", "RGB", "1"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["noise", "flat", "steps"]),
    st.integers(),
)
def test_two_other_decoders_read_the_same_pixels(mode: str, width_px: int, height_px: int, kind: str, seed: int) -> None:
    image = _image(mode, width_px, height_px, kind, seed)
    data = png(image)
    with Image.open(io.BytesIO(data)) as read:
        read.load()
        assert read.convert("RGB").tobytes() == image.convert("RGB").tobytes()
        assert not read.info
    pixels = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR)
    assert numpy.array_equal(pixels[:, :, ::-1], numpy.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_one_line_and_one_column_are_images_too(size: tuple[int, int]) -> None:
    image = _image("RGB", *size, "noise", 0)
    with Image.open(io.BytesIO(png(image))) as read:
        assert read.tobytes() == image.tobytes()


def test_a_crop_that_reaches_past_its_image_keeps_its_black_border() -> None:
    image = _image("RGB", 20, 20, "noise", 0).crop((-3, -4, 25, 30))
    with Image.open(io.BytesIO(png(image))) as read:
        assert read.tobytes() == image.tobytes()


@pytest.mark.parametrize(("mode", "size"), [("RGBA", (2, 2)), ("P", (2, 2)), ("I;16", (2, 2)), ("RGB", (0, 3))])
def test_other_modes_and_empty_images_are_refused(mode: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} in mode {mode}; expected"):
        png(Image.new(mode, size))


def _image(mode: str, width_px: int, height_px: int, kind: str, seed: int) -> Image.Image:
    rng = random.Random(seed)
    if kind == "flat":
        return Image.new("RGB", (width_px, height_px), (rng.randrange(256), 7, 255)).convert(mode)
    if kind == "steps":
        return Image.linear_gradient("L").resize((width_px, height_px)).convert("RGB").convert(mode)
    return Image.frombytes("RGB", (width_px, height_px), rng.randbytes(3 * width_px * height_px)).convert(mode)
