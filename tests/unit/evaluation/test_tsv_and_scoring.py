import base64
import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import Episode, StopReason
from agent.messages import Message
from evaluation.benchmarks import BenchmarkError, load_benchmark
from evaluation.scoring import infer_choice, infer_option
from evaluation.statistics import wilson_interval
from evaluation.tsv import read_tsv
from tests.conftest import png

COLUMNS = ["index", "image", "question", "A", "B", "C", "D", "answer", "category"]
CHOICES = {"A": "red", "B": "blue", "C": "green", "D": "black"}


def b64(*size: int) -> str:
    return base64.b64encode(png(*size)).decode()


def row(index, image, answer="A", **edits):
    values = {
        "index": index,
        "image": image,
        "question": f"q{index}?",
        "answer": answer,
        "category": "direct_attributes",
        **CHOICES,
    }
    return {**values, **edits}


def write(path, rows, *, columns=COLUMNS, newline="\n"):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator=newline, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "V.tsv"


def test_every_form_of_image_is_read(path):
    write(path, [row(0, b64(8, 8)), row(1, "0"), row(2, str([b64(9, 9), b64(10, 10)]))])
    rows = list(read_tsv(path, required=("question",)))
    assert [[image.size for image in r.images] for r in rows] == [[(8, 8)], [(8, 8)], [(9, 9), (10, 10)]]


def test_windows_line_ends_and_quoted_newlines_are_read(path):
    write(path, [row(0, b64(8, 8), question='two\nlines "quoted"'), row(1, "0")], newline="\r\n")
    rows = list(read_tsv(path, required=("question",)))
    assert rows[0].values["question"] == 'two\nlines "quoted"'
    assert rows[1].values["category"] == "direct_attributes"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, "7")], "row 1: image refers to row '7'"),
        ([row(0, b64(8, 8)), row(1, "!" * 100)], "row 2: the image is no base64"),
        ([row(0, "['abc")], "starts with '\\[' but is no list"),
    ],
)
def test_a_broken_image_is_named_by_its_row(path, rows, message):
    with pytest.raises(BenchmarkError, match=message):
        list(read_tsv(write(path, rows), required=()))


def test_a_wrong_file_is_one_clear_message(path, tmp_path):
    with pytest.raises(BenchmarkError, match="lacks the column answer; it has index, question"):
        list(read_tsv(write(path, [], columns=["index", "question"]), required=("question", "answer")))
    with pytest.raises(BenchmarkError, match="no file"):
        list(read_tsv(tmp_path / "none.tsv", required=()))
    write(path, [row(0, b64(8, 8))])
    path.write_text(path.read_text() + "1\tabc\n")
    with pytest.raises(BenchmarkError, match="row 2: fewer than 9 columns; was the file cut off"):
        list(read_tsv(path, required=()))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchmarkError, match="no readable TSV|lacks the column"):
        list(read_tsv(path, required=()))


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("**B**", "B"), ("Answer: B", "B"), (r"\boxed{C}", "C"), ('"B"', None), ("b", None),
        ("A or B", None), ("", None), ("The answer is B", "B"), ("The answer is B. Because it is there and so on", None),
        ("Z", "Z"), ("Cannot determine the answer", "Z"),
    ],
)  # fmt: skip
def test_option_letters_are_read_by_vlmevalkits_rule(answer, letter):
    assert infer_option(answer, CHOICES) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("it is blue", "B"), ("both red and blue", None), ("x" * 60 + "blue", None), ("B", "B"), ("BLUE.", "B")],
)
def test_an_options_text_counts_if_it_is_the_only_one(answer, letter):
    assert infer_choice(answer, CHOICES) == letter


@given(st.text(max_size=80))
def test_reading_an_option_never_raises(text):
    assert infer_choice(text, CHOICES) in {*CHOICES, "Z", None}


def episode(answer):
    stop = StopReason.ANSWERED if answer else StopReason.NO_ACTION
    return Episode(opening=(Message("user", "q"),), stop_reason=stop, answer=answer)


def test_vstar_is_read_and_scored_as_vlmevalkit_does(path):
    vstar = load_benchmark("vstar")
    write(path, [row(0, b64(8, 8), answer="B"), row(1, "0", answer="A", C="", D="nan")])
    first, second = vstar.load(path)
    assert (
        first.question
        == "q0?\nOptions:\nA. red\nB. blue\nC. green\nD. black\nPlease select the correct answer from the options above."
    )
    assert list(second.choices) == ["A", "B"]
    assert [vstar.grade(first, episode(text)).correct for text in ("B", "A", "blue", None)] == [True, False, True, False]
    assert vstar.grade(first, episode("hm")).decided_by == "rule:unparsed"


@pytest.mark.parametrize(
    ("edits", "message"), [({"answer": "E"}, "is none of the options A, B, C, D"), ({"image": ""}, "there is no image")]
)
def test_a_vstar_row_that_cannot_be_scored_is_named(path, edits, message):
    write(path, [row(0, b64(8, 8)), row(1, "0", **edits) if "image" not in edits else row(1, "")])
    with pytest.raises(BenchmarkError, match=f"row 2: .*{message}"):
        list(load_benchmark("vstar").load(path))


def test_an_unknown_benchmark_lists_those_that_are():
    with pytest.raises(LookupError, match="tiles, vstar"):
        load_benchmark("nope")


def test_intervals_hold_the_share_and_stay_within_0_and_1():
    for successes in range(11):
        low, high = wilson_interval(successes, 10)
        assert 0 <= low <= successes / 10 <= high <= 1
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(1, 0)
