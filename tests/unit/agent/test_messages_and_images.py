import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.images import ImageFile, UnreadableImage, fit_observation, observation_size
from agent.messages import Message, escape, messages_from_rows
from tests.conftest import png


def encoded(mode: str, size: tuple[int, int], fmt: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, fmt, **options)
    return buffer.getvalue()


def test_a_message_refuses_a_wrong_number_of_images():
    with pytest.raises(ValueError, match="1 <image> placeholders and 0 images"):
        Message("user", "<image>what?")


def test_parts_keep_the_reading_order():
    first, second = ImageFile(png()), ImageFile(png(9, 9))
    parts = list(Message("user", "a<image>b<image>", (first, second)).parts())
    assert parts == ["a", first, "b", second]


def test_rows_take_images_in_order_and_every_image_is_used():
    images = [ImageFile(png(n, n)) for n in (5, 6, 7)]
    rows = [
        {"role": "user", "content": "<image><image>"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "<image>"},
    ]
    messages = messages_from_rows(rows, images)
    assert [len(message.images) for message in messages] == [2, 0, 1]
    with pytest.raises(ValueError, match="1 of 4 images have no <image>"):
        messages_from_rows(rows, [*images, images[0]])
    with pytest.raises(ValueError, match="needs 1 images, but only 0 of 2"):
        messages_from_rows(rows, images[:2])


@pytest.mark.parametrize(
    ("row", "message"), [({"role": "tool", "content": ""}, "role 'tool'"), ({"role": "user", "content": None}, "NoneType")]
)
def test_a_bad_row_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        messages_from_rows([row], [])


@given(st.text())
def test_escaped_text_holds_no_placeholder_and_no_special_token(text):
    escaped = escape(text + "<image><|im_start|>")
    assert "<image>" not in escaped
    assert "<|im_start|>" not in escaped


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (100, 100)),
        ((1, 1), (32, 32)),
        ((10, 20), (32, 64)),
        ((2010, 10), (3216, 32)),
        ((3000, 10), (4800, 32)),
        ((32, 6400), (32, 6400)),
    ],
)
def test_shown_images_follow_the_published_size_rule(size, expected):
    assert observation_size(*size) == expected


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_no_shown_image_has_a_side_under_32_px_or_an_aspect_over_200(width, height):
    shown = observation_size(width, height)
    assert min(shown) >= 32
    assert max(shown) / min(shown) <= 200


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I", "CMYK", "LA"])
def test_every_colour_mode_decodes_to_rgb(mode):
    data = encoded(mode, (40, 40), "TIFF" if mode == "CMYK" else "PNG")
    assert ImageFile(data).pil().mode == "RGB"


def test_an_image_that_fits_keeps_its_bytes_and_another_is_resized():
    image = ImageFile(png(64, 64))
    assert fit_observation(image) is image
    assert fit_observation(ImageFile(png(8, 8))).size == (32, 32)


@pytest.mark.parametrize("data", [b"", b"not an image", png()[:20], b"\x89PNG\r\n\x1a\n" + b"0" * 40])
def test_broken_bytes_are_a_typed_error(data):
    with pytest.raises(UnreadableImage):
        ImageFile(data).pil()


def test_mime_and_data_uri_follow_the_content():
    assert ImageFile(encoded("RGB", (4, 4), "JPEG")).mime == "image/jpeg"
    assert ImageFile(png()).data_uri().startswith("data:image/png;base64,iVBOR")
