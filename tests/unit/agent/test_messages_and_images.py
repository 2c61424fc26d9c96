import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.images import ImageFile, UnreadableImage, fit_observation, observation_size
from agent.messages import Message, escape, messages_from_rows
from agent.protocol import bound_observation
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


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return ImageFile(buffer.getvalue())


def header_of(width, height):
    """A PNG that claims a size and holds no pixels."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return ImageFile(b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (saved(Image.new("RGB", (1, 1)), "PNG"), (32, 32)),
        (saved(Image.new("RGB", (600, 3)), "PNG"), (6400, 32)),
        (saved(Image.new("RGB", (3, 603)), "PNG"), (32, 3211)),
        (saved(Image.new("CMYK", (64, 48)), "JPEG"), (64, 48)),
        (saved(Image.new("P", (64, 48)), "PNG"), (64, 48)),
        (saved(Image.new("RGBA", (64, 48)), "PNG"), (64, 48)),
        (saved(Image.new("I;16", (64, 48)), "PNG"), (64, 48)),
        (saved(Image.new("1", (20, 64)), "TIFF"), (32, 103)),
        (
            saved(Image.new("RGB", (64, 48)), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]),
            (64, 48),
        ),
    ],
    ids=["1x1", "200:1", "1:201", "cmyk", "palette", "alpha", "16-bit", "1-bit", "animated"],
)
def test_images_of_every_kind_are_shown_in_a_decided_size_and_decode_to_rgb(image, shown):
    fitted = fit_observation(image)
    assert fitted.size == shown
    assert fitted.pil().mode == "RGB"


@pytest.mark.parametrize(
    "image",
    [
        ImageFile(b""),
        ImageFile(b"x"),
        ImageFile(png(64, 64)[:60]),
        header_of(30_000, 30_000),
        header_of(64, 64),
        ImageFile(b"<svg/>"),
    ],
    ids=["empty", "text", "cut", "30k-x-30k", "no-pixels", "svg"],
)
def test_an_image_that_cannot_be_used_is_one_type_of_error(image):
    with pytest.raises(UnreadableImage):
        fit_observation(image).pil()


def test_equal_bytes_are_one_object_while_somebody_holds_it():
    first = ImageFile.shared(bytes(png()))
    assert ImageFile.shared(bytes(bytearray(png()))) is first
    assert ImageFile(png()) == first


@given(st.text(max_size=200), st.integers(0, 12), st.integers(20, 120), st.integers(0, 6))
def test_a_bounded_observation_keeps_placeholders_equal_to_images_and_says_what_is_missing(
    text, count, max_chars, max_images
):
    body = escape(text)
    message = Message("user", "<image>".join([body] * (count + 1)), (ImageFile(png()),) * count)
    bounded = bound_observation(message, max_chars=max_chars, max_images=max_images)
    assert len(bounded.images) == min(count, max_images)
    if len(message.text) <= max_chars and count <= max_images:
        assert bounded == message
    if count > max_images:
        assert "[an image was left out]" in bounded.text or "characters were left out" in bounded.text
    parts = len(bounded.images) + 1
    assert len(bounded.text.replace("<image>", "")) <= max_chars + 60 * parts
