"""VLMEvalKit's files: every form of image, every way a file can be broken."""

import base64
import re

import pytest

from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.tables.tsv import literal_list, raw_rows, read_tsv
from tests.benchmark_tables import b64, row, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "V.tsv"


def test_every_form_of_image_is_read(path):
    rows = [
        row(0, b64(8, 8)),
        row(1, "0"),
        row(2, str([b64(9, 9), b64(10, 10)])),
        row(3, "4"),
        row(4, b64(11, 11)),
        row(5, ""),
    ]
    found = {r.values["index"]: [image.size for image in r.images()] for r in read_tsv(write(path, rows), required=())}
    assert found == {
        "0": [(8, 8)], "1": [(8, 8)], "2": [(9, 9), (10, 10)], "3": [(11, 11)], "4": [(11, 11)], "5": [],
    }  # fmt: skip


def test_only_images_that_others_refer_to_are_kept_in_memory(path, monkeypatch):
    """A file of gigabytes streams: of 200 large images one is referred to, and one is held."""
    import tracemalloc

    big = base64.b64encode(b"\x89PNG" + bytes(300_000)).decode()
    write(path, [row(n, big if n != 150 else "3") for n in range(200)])
    tracemalloc.start()
    assert sum(1 for _ in read_tsv(path, required=())) == 200
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(big)


def test_windows_line_ends_a_byte_order_mark_and_quoted_newlines_are_read(path):
    write(path, [row(0, b64(8, 8), question='two\nlines "quoted"'), row(1, "0")], newline="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    rows = list(read_tsv(path, required=("question",)))
    assert rows[0].values["question"] == 'two\nlines "quoted"'
    assert rows[1].values["category"] == "direct_attributes"


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "None"])
def test_what_the_references_reader_takes_for_nothing_is_no_option_where_it_fills_a_table(path, cell):
    write(path, [row(0, b64(8, 8), C=cell, D=cell)])
    assert list(next(read_tsv(path, required=())).choices()) == ["A", "B"]


@pytest.mark.parametrize("cell", ["None", "NA", "N/A", "n/a", "null", "NULL"])
@pytest.mark.parametrize("answer", ["A", "D"])
def test_an_option_called_none_is_shown_and_may_be_right(path, cell, answer):
    write(path, [row(0, b64(8, 8), answer, D=cell)])
    (item,) = load_benchmark("vstar").load(path)
    assert (item.choices["D"], item.gold) == (cell, answer)
    assert f"D. {cell}\n" in item.question


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, "'")], 'row 1: no image file "\'" in .*, and it is no base64 of an image'),
        ([row(0, b64(8, 8)), row(1, "!" * 2000)], "row 2: the image is no base64"),
        ([row(0, b64(8, 8)), row(1, "!" * 100)], "row 2: no image file '!!!.*, and it is no base64"),
        ([row(0, "['abc")], "starts with '\\[' but is no list"),
        ([row(0, b64(8, 8)), row(0, b64(8, 8))], "row 2: the index '0' was there before"),
    ],
)
def test_a_broken_row_is_named(path, rows, message):
    with pytest.raises(BenchmarkError, match=message):
        [r.images() for r in read_tsv(write(path, rows), required=())]


def test_a_wrong_file_is_one_clear_message(path, tmp_path):
    with pytest.raises(BenchmarkError, match="lacks the column answer; it has index, question"):
        list(read_tsv(write(path, [], columns=["index", "question"]), required=("question", "answer")))
    with pytest.raises(BenchmarkError, match="no file"):
        list(read_tsv(tmp_path / "none.tsv", required=()))
    write(path, [row(0, b64(8, 8))])
    path.write_text(path.read_text() + "1\tabc\n")
    with pytest.raises(BenchmarkError, match="row 2: fewer than 9 columns; was the file cut off"):
        list(raw_rows(path, required=()))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchmarkError, match="no readable TSV|lacks the column"):
        list(read_tsv(path, required=()))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"answer": "E"}, "is none of the options A, B, C, D"),
        ({"image": ""}, "no image"),
        ({"question": "nan"}, "'question' is empty"),
    ],
)
def test_a_row_of_choices_that_cannot_be_scored_is_named_and_alone(path, edits, message):
    write(path, [{**row(1, "0"), **edits}, row(0, b64(8, 8))])
    found = {item.item_id: item.unread for item in load_benchmark("vstar").load(path)}
    assert found["0"] == ""
    assert re.search(f"row 1: .*{message}", found["1"])


def test_list_literals_are_read_and_other_texts_are_one_answer():
    assert literal_list("['a', 2]") == ["a", "2"]
    assert literal_list("[broken") == ["[broken"]
    assert literal_list("plain") == ["plain"]
