import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images import ImageFile
from agent.messages import Message, escape, messages_from_rows
from agent.protocol import bound_observation
from tests.conftest import png


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
