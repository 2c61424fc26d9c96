"""What a kernel sends is read within bounds, and what a kernel of ours sends is within them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_sandbox.server.kernel_messages import MAX_MESSAGE_BYTES, TooMuch, _shortened, unpacked
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
        b'"' + b"\\u0041" * 4_000_000 + b'"',
    ],
    ids=["lists", "numbers", "after an escape", "texts", "a nest", "names", "a text of escapes"],
)
def test_a_message_of_millions_of_values_is_refused_before_it_is_read(data):
    with pytest.raises(TooMuch, match="more than 300,000 values"):
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
    picture = "A" * (MAX_MESSAGE_BYTES + 1)
    sent = _shortened(
        {
            "name": "stdout",
            "text": flood,
            "traceback": [flood, flood],
            "metadata": {"a": [[]] * 10},
            "data": {"text/html": flood, "image/png": picture, "application/json": [[]] * 1000, "text/plain": "<Figure>"},
        }
    )
    data = json.dumps(sent).encode()
    assert len(data) < 8 * MAX_CHARS
    assert unpacked(data) == sent
    assert sent["text"].startswith(flood[: MAX_CHARS + 1])
    assert sent["text"].endswith(flood[-MAX_CHARS // 2 :])
    assert sent["data"]["text/plain"] == "[an image of 50,331,648 bytes is not shown; show a smaller one]"
    assert "image/png" not in sent["data"]


def test_what_is_short_is_sent_as_it_is():
    content = {"name": "stdout", "text": "5 \u4e2d\n", "data": {"image/png": "AAAA", "text/plain": "x"}, "execution_count": 3}
    assert _shortened(content) == content | {"metadata": {}}
    assert _shortened({"text": "\ud83d"}) == {"text": "?"}
