"""What a kernel sends is read within bounds, and what a kernel of ours sends is within them."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from code_sandbox.server.kernel_messages import TooMuch, _shortened, check_parts, image_of, keep_to_bounds, unpacked
from code_sandbox.wire import MAX_CHARS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', '\\"', "\\", "[[,", '\\\\"[']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@given(VALUES, st.booleans())
def test_a_message_is_read_as_json_reads_it(value, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(data)
    except ValueError:
        return
    assert unpacked(data) == expected


@pytest.mark.parametrize("text", ["[{," * 400_000, '"' * 700_000, '\\"[' * 400_000, "\\" * 700_001, "\x01," * 400_000, "图,[" * 400_000])
def test_a_long_text_is_no_structure_whatever_it_holds(text):
    message = {"name": "stdout", "text": text}
    assert unpacked(json.dumps(message, ensure_ascii=False).encode()) == message


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * 10_000_000 + b"1]",
        b"[" + b"1," * 20_000_000 + b"1]",
        b'["\\\\",' + b"[]," * 1_000_000 + b"1]",
        b"[" + b'"",' * 10_000_000 + b"1]",
        b"[" * 40_000_000,
        b"{" + b'"a":1,' * 1_000_000 + b'"a":1}',
    ],
    ids=["lists", "numbers", "after an escape", "texts", "a nest", "names"],
)
def test_a_message_of_millions_of_values_is_refused_before_it_is_read(data):
    with pytest.raises(TooMuch, match="more than 20,000 values"):
        unpacked(data)


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"1", b'"a":']), max_size=30).map(b"".join))
def test_what_is_no_json_is_an_error_of_its_value(data):
    try:
        unpacked(data)
    except (ValueError, RecursionError):
        return
    json.loads(data)


def test_what_a_cell_shows_is_shortened_where_nobody_would_see_it():
    flood = ",[" * 40_000_000
    sent = _shortened(
        {
            "name": "stdout",
            "text": flood,
            "traceback": [flood, flood],
            "metadata": {"a": [[]] * 10},
            "data": {"text/html": flood, "image/png": 0, "application/json": [[]] * 1000, "text/plain": "<Figure>"},
        }
    )
    data = json.dumps(sent).encode()
    assert len(data) < 8 * MAX_CHARS
    assert unpacked(data) == sent
    assert sent["text"].startswith(flood[: MAX_CHARS + 1])
    assert sent["text"].endswith(flood[-MAX_CHARS // 2 :])


def test_what_is_short_is_sent_as_it_is():
    content = {"name": "stdout", "text": "5 \u4e2d\n", "data": {"image/png": 0, "text/plain": "x"}, "execution_count": 3}
    assert _shortened(content) == content | {"metadata": {}}
    assert _shortened({"text": "\ud83d"}) == {"text": "?"}


class _Kernel:
    """What a kernel has of Jupyter's: a session, and a thread that sends its output."""

    def __init__(self) -> None:
        self.session = Session(key=b"key")
        self.iopub_thread = self
        self.parts: list[bytes] = []

    def schedule(self, work) -> None: ...

    def send_multipart(self, parts, **_) -> None:
        self.parts = list(map(bytes, parts))

    def sent(self, data) -> dict:
        """A message with this data, as the server reads it."""
        self.session.send(self, self.session.msg("display_data", {"data": data, "metadata": {}}), ident=b"display_data")
        parts = self.session.feed_identities(self.parts)[1]
        check_parts(parts)
        return Session(key=b"key", unpack=unpacked).deserialize(parts)


@pytest.fixture
def kernel():
    kernel = _Kernel()
    keep_to_bounds(kernel)
    return kernel


@pytest.mark.parametrize("image", [b"\x89PNG bytes", base64.b64encode(b"\x89PNG bytes").decode()])
def test_an_image_goes_as_bytes_beside_the_json(kernel, image):
    message = kernel.sent({"image/png": image, "text/plain": "<Figure>"})
    assert image_of(message) == ("image/png", b"\x89PNG bytes")
    assert message["content"]["data"] == {"image/png": 0, "text/plain": "<Figure>"}


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (bytes(45 << 20), "[an image of 47,185,920 bytes is not shown; show a smaller one]"),
        ("zzz", "[an image that is no base64 is not shown]"),
        ([1], "[an image that is no base64 is not shown]"),
    ],
)
def test_an_image_that_cannot_be_sent_is_a_line_of_text(kernel, image, said):
    message = kernel.sent({"image/png": image, "text/plain": "<Figure>"})
    assert image_of(message) is None
    assert message["content"]["data"] == {"text/plain": said}


@pytest.mark.parametrize("number", [1, -2, "AAAA", None, 0.5, [0]])
def test_an_image_that_no_kernel_of_ours_has_sent_is_an_error(number):
    with pytest.raises((LookupError, TypeError)):
        image_of({"content": {"data": {"image/png": number}}, "buffers": [b"x"]})


def test_a_message_with_too_much_json_is_refused_before_it_is_read():
    image = bytes(40 << 20)
    check_parts([b"", b"{}", b"{}", b"{}", b"{}", image])
    with pytest.raises(TooMuch, match="more than 20,971,520"):
        check_parts([b"", b"{}", b"{}", b"{}", bytes(20 << 20)])
