"""Elements of JSON files are read one by one in the forms in which people publish them, and a broken one takes no other with it."""

from __future__ import annotations

import json
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import json_items as module
from agent.json_items import BYTE_ORDER_MARK, JSON_LINES, MISSING_COMMA, TRAILING_COMMA, json_items

VALUES = [{"a": '"[{', "b": [1, {"c": "\\"}]}, {"messages": [{"content": "],\n,}"}]}, {"d": "é中\U0001f600"}]
TEXT = json.dumps(VALUES, ensure_ascii=False, indent=1)


def read(tmp_path, text, name="a.json"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(json_items(path))


def lines(values=VALUES):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


@pytest.mark.parametrize(
    ("text", "name", "mended"),
    [
        (TEXT, "a.json", set()),
        ("\ufeff" + TEXT, "a.json", {BYTE_ORDER_MARK}),
        (TEXT[:-2] + ",\n]\n", "a.json", {TRAILING_COMMA}),
        (TEXT.replace("}\n  ]", "},\n  ]"), "a.json", {TRAILING_COMMA}),
        (TEXT.replace("},\n {", "}\n {"), "a.json", {MISSING_COMMA}),
        (lines(), "a.jsonl", {JSON_LINES}),
        (lines(), "a.json", {JSON_LINES}),
        (lines().replace("\n", "\r\n\r\n"), "a.jsonl", {JSON_LINES}),
        (lines().replace("}\n", "},\n"), "a.jsonl", {JSON_LINES}),
        ("\n".join(json.dumps(value, indent=2, ensure_ascii=False) for value in VALUES), "a.json", {JSON_LINES}),
        (lines().rstrip("\n"), "a.ndjson", {JSON_LINES}),
    ],
)  # fmt: skip
def test_every_form_gives_the_same_values_and_says_what_strict_readers_would_refuse(tmp_path, text, name, mended):
    found = read(tmp_path, text, name)
    assert [item.value for item in found] == VALUES
    assert [item.number for item in found] == [0, 1, 2]
    assert {note for item in found for note in item.mended} == mended


@pytest.mark.parametrize(
    ("text", "name", "good", "said"),
    [
        (TEXT[:-8], "a.json", 2, "the file ends inside it.*download cut off"),
        (TEXT[:-2], "a.json", 3, "the list is not closed after 3 elements.*download cut off"),
        (TEXT + "garbage", "a.json", 3, "something follows the end of the list"),
        (lines()[:-9] + "\n", "a.jsonl", 2, "it is no JSON"),
        (TEXT.replace('"b": [', '"b": [x'), "a.json", 2, "it is no JSON"),
        ("<html>", "a.json", 0, "it is no JSON"),
    ],
)  # fmt: skip
def test_a_broken_element_is_named_and_the_others_are_read(tmp_path, text, name, good, said):


    found = read(tmp_path, text, name)
    assert sum(not item.problem for item in found) == good
    (problem,) = [item.problem for item in found if item.problem]
    assert re.search(said, problem), problem


@pytest.mark.parametrize("text", ["", " \n", "[]", "[ ]\n"])
def test_an_empty_file_has_no_elements(tmp_path, text):
    assert read(tmp_path, text) == []


def test_half_a_line_of_a_file_of_lines_takes_only_itself(tmp_path):
    found = read(tmp_path, '{"a": 1}\n{"a": [\n{"a": 3}\n', "a.jsonl")
    assert [item.value for item in found] == [{"a": 1}, None, {"a": 3}]


@given(st.lists(st.recursive(st.text() | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)), st.sampled_from([1, 3, 7, 64]), st.booleans())  # fmt: skip
def test_any_list_is_read_as_json_reads_it_wherever_blocks_end(tmp_path_factory, values, block, ascii_only):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(values, ensure_ascii=ascii_only), encoding="utf-8", errors="surrogatepass")
    before, module._BLOCK = module._BLOCK, block
    try:
        found = list(json_items(path))
    finally:
        module._BLOCK = before
    if not any(item.problem for item in found):  # half surrogates are no UTF-8
        assert [item.value for item in found] == values
        assert not {note for item in found for note in item.mended} - {JSON_LINES}


def test_a_long_file_is_never_held_whole(tmp_path):
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[")
        for number in range(3000):
            file.write(json.dumps({"n": number, "text": "x" * 10_000}) + ",\n")
        file.write("{}]")
    tracemalloc.start()
    assert sum(1 for _ in json_items(path)) == 3001
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_an_element_without_an_end_is_given_up_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ITEM_BYTES", 1 << 20)
    found = read(tmp_path, '[{"a": 1}, {"a": "' + "x" * (4 << 20))
    assert found[0].value == {"a": 1}
    assert "more than 1,048,576 bytes, and what follows is not read; is a quotation mark missing?" in found[1].problem


@pytest.mark.parametrize(("encoding", "why"), [("utf-16", "UTF-16"), ("latin-1", "0xfc"), ("gb18030", "0xa8")])
def test_another_encoding_is_called_by_name_with_the_way_out(tmp_path, encoding, why):
    path = tmp_path / "a.json"
    path.write_bytes('[{"a": "\u00fc"}]'.encode(encoding))
    (item,) = json_items(path)
    assert why in item.problem
    assert "iconv" in item.problem
