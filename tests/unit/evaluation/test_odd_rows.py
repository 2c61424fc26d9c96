"""One odd row is one row: it is read, or counted as not evaluated by name; a file is refused only if nothing can be read."""

import asyncio
import base64
import io
import json
import re

import pytest
from PIL import Image

from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.exchange.export import export
from evaluation.exchange.imports import import_predictions
from evaluation.runs.ask import ModelServers, infer
from evaluation.runs.folder import facts_of, open_run, read_items
from evaluation.runs.rows import read_scores
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.grader import Grader, Prediction
from evaluation.scoring.profiles import load_profile
from judge.client import Judge, JudgeSettings
from tests.benchmark_tables import COLUMNS, b64, row, write
from tests.conftest import png
from tests.recorded_runs import episode

NOISE = io.BytesIO()
Image.effect_noise((64, 64), 90).save(NOISE, "PNG")
PICTURE = NOISE.getvalue()
TOLD = [*(name for name in COLUMNS if name != "image"), "prediction"]
PLAIN = base64.b64encode(PICTURE).decode()
URL_SAFE = base64.urlsafe_b64encode(PICTURE).decode()


def grader():
    return Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))


def settings_of(benchmark, data, **more):
    return EvaluationSettings(benchmark=benchmark, data=str(data), model="m", prompt="deepeyesv2_code", **more)


def scored(tmp_path, benchmark, data):
    """(summary, rows by id) of a run in which every question that is asked is answered right."""
    run, one = tmp_path / "run", load_benchmark(benchmark)
    asked = open_run(run, settings_of(benchmark, data), one, data)
    assert open_run(run, settings_of(benchmark, data), one, data) == asked
    writer = TrajectoryWriter(run)
    answered = [item for item in read_items(run).values() if not item.unread]
    assert len(answered) == asked
    for item in answered:
        writer.write(episode(item.gold), facts_of(item, benchmark))
    summary = asyncio.run(score(run, one, grader()))
    return summary, {one.item_id: one for one in read_scores(run)}


def write_json(tmp_path, rows, name="rows.json"):
    (tmp_path / "a.png").write_bytes(png())
    path = tmp_path / name
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "cell",
    [
        f"data:image/png;base64,{PLAIN}",
        "\n".join(re.findall(".{1,76}", PLAIN)),
        PLAIN.rstrip("="),
        f" {PLAIN} ",
        f"b'{PLAIN}'",
        URL_SAFE,
        f"['data:image/png;base64,{PLAIN}']",
    ],
    ids=["data URI", "wrapped", "unpadded", "blanks", "bytes literal", "url-safe", "list"],
)
def test_base64_is_read_however_it_is_dressed(tmp_path, cell):
    path = write(tmp_path / "V.tsv", [row(0, cell)])
    (item,) = load_benchmark("vstar").load(path)
    assert item.read_images()[0].data == PICTURE
    (other,) = load_benchmark("realx").load(
        write_json(tmp_path, [{"query": "q", "answer": "x", "image": cell.strip("[]'")}])
    )
    if not cell.startswith(("[", "b'")):
        assert other.read_images()[0].data == PICTURE


def test_url_safe_base64_differs_here():
    assert set(URL_SAFE) & set("-_")


@pytest.mark.parametrize(("cell", "count"), [("a.png", 1), ("sub/b.png", 1), ("['a.png', 'sub/b.png']", 2)])
@pytest.mark.parametrize("column", ["image_path", "image"])
def test_images_that_lie_beside_the_table_are_read(tmp_path, cell, count, column):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(PICTURE)
    columns = [column if name == "image" else name for name in COLUMNS]
    path = write(tmp_path / "V.tsv", [row(0, "") | {column: cell}], columns=columns)
    (item,) = load_benchmark("vstar").load(path)
    assert [image.data for image in item.read_images()] == [PICTURE] * count


def test_an_image_of_few_bytes_is_no_index_of_another_row(tmp_path):
    cell = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    (item,) = load_benchmark("vstar").load(write(tmp_path / "V.tsv", [row(0, cell)]))
    assert item.read_images()[0].size == (1, 1)


def test_an_index_that_a_table_wrote_as_a_float_is_that_row(tmp_path):
    path = write(tmp_path / "V.tsv", [row("0.0", b64(8, 8)), row("1.0", "0"), row("2.0", "0.0"), row("1.5", b64(9, 9))])
    found = {item.item_id: item.read_images()[0].size for item in load_benchmark("vstar").load(path)}
    assert found == {"0": (8, 8), "1": (8, 8), "2": (8, 8), "1.5": (9, 9)}


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "(b)", "B.", " B "])
def test_an_answer_key_is_a_letter_however_it_is_written(tmp_path, answer):
    (item,) = load_benchmark("vstar").load(write(tmp_path / "V.tsv", [row(0, b64(8, 8), answer)]))
    assert item.gold == "B"
    columns = [*COLUMNS, "multi-choice options", "l2-category"]
    odd = row(0, b64(8, 8), answer, category="OCR/Table") | {"multi-choice options": "['(A)x', '(B)y']", "l2-category": "t"}
    (other,) = load_benchmark("mme_realworld_lite").load(write(tmp_path / "M.tsv", [odd], columns=columns))
    assert (other.gold, "(A)x\n(B)y" in other.question) == ("B", True)


def test_a_key_of_several_letters_is_read_letter_by_letter(tmp_path):
    path = write(tmp_path / "L.tsv", [row(0, b64(8, 8), "a,(C)", skill="inductive")], columns=[*COLUMNS, "skill"])
    (item,) = load_benchmark("logicvista").load(path)
    assert item.gold == "A, C"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"image": "!" * 100}, "row 2: no image file '!!!"),
        ({"image": "!" * 2000}, "row 2: the image is no base64"),
        ({"image": base64.b64encode(b"no image at all" * 99).decode()}, "item odd: 1,485 bytes are no image"),
        (
            {"image": base64.b64encode(PICTURE[: len(PICTURE) // 3]).decode()},
            "item odd: .* bytes are no image, or a broken one",
        ),
        ({"image": "7"}, "row 2: image refers to row '7', which is not in the file"),
        ({"image": "['abc"}, "row 2: image starts with '\\[' but is no list"),
        ({"answer": "E"}, "row 2: answer 'E' is none of the options A, B, C, D"),
        ({"answer": ""}, "row 2: 'answer' is empty"),
        ({"question": "nan"}, "row 2: 'question' is empty"),
    ],
)
def test_an_odd_row_of_a_table_is_not_evaluated_by_name_and_the_others_are(tmp_path, odd, reason, caplog):
    rows = [row("one", b64(8, 8)), row("odd", b64(9, 9)) | odd, row("three", b64(10, 10))]
    summary, found = scored(tmp_path, "vstar", write(tmp_path / "V.tsv", rows))
    assert (summary.items, summary.evaluated, summary.not_evaluated, summary.accuracy) == (3, 2, 1, 1.0)
    assert (found["odd"].correct, found["odd"].decided_by) == (None, "unusable_row")
    assert re.search(reason, found["odd"].reason)
    assert list(summary.failures.values()) == [1]
    assert "1 of 3 rows" in caplog.text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"9\tabc\n", "fewer than 9 columns; was the file cut off"),
        (b"9\tabc" + b"\tx" * 9 + b"\n", "more than 9 columns"),
        (b"9\t\tcaf\xe9?\tr\tb\tg\tk\tA\tc\n", "question is not UTF-8"),
        (b"\t\tq?\tr\tb\tg\tk\tA\tc\n", "'index' is empty"),
    ],
)
def test_a_line_that_is_no_row_of_the_table_is_one_row(tmp_path, line, reason):
    path = write(tmp_path / "V.tsv", [row(0, b64(8, 8))])
    path.write_bytes(path.read_bytes() + line)
    summary, found = scored(tmp_path, "vstar", path)
    assert (summary.evaluated, summary.not_evaluated) == (1, 1)
    name = "9" if line.startswith(b"9") else "V.tsv, row 2"
    assert reason in found[name].reason


def test_quotes_that_take_in_other_rows_refuse_the_file(tmp_path):
    """They are not one row: those that were taken in could not be named."""
    path = write(tmp_path / "V.tsv", [row(n, b64(8, 8)) for n in range(5)])
    path.write_text(path.read_text().replace("q1?", '"q1?'))
    with pytest.raises(BenchmarkError, match="row 2 has quotes that do not end, which take in the rows down to line 6"):
        list(load_benchmark("vstar").load(path))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"query": "q", "answer": None}], "answer is null"),
        ([{"query": "q"}], "it has no answer; it has query"),
        ([{"query": "q", "answer": " "}], "no gold answer"),
        ([{"query": "q", "answer": "x", "image": "gone.png"}], "no image file 'gone.png'"),
        ([{"query": "q", "answer": "x", "image": 7}], "an image is int; expected bytes, base64 or a path"),
        ([7], "it is no object but 7"),
    ],
)
def test_an_odd_row_of_json_is_one_row(tmp_path, rows, reason):
    good = {"query": "q", "answer": "red", "image": "a.png"}
    summary, found = scored(tmp_path, "realx", write_json(tmp_path, [good, *rows, {**good, "id": "last"}]))
    assert (summary.evaluated, summary.not_evaluated) == (2, 1)
    assert [reason in one.reason for one in found.values() if one.correct is None] == [True]


def test_a_line_that_is_no_json_is_one_row(tmp_path):
    good = json.dumps({"query": "q", "answer": "red", "image": "a.png"})
    summary, found = scored(tmp_path, "realx", write_json(tmp_path, f"{good}\n{{nope\n{good}\n", "rows.jsonl"))
    assert (summary.evaluated, summary.not_evaluated) == (2, 1)
    assert "row 2: the line is no JSON" in found["rows.jsonl, row 2"].reason


@pytest.mark.parametrize(("benchmark", "odd"), [("fvqa", {"reward_model": "x"}), ("tir_bench", {"meta_data": [1]})])
def test_a_value_of_another_kind_is_one_row(tmp_path, benchmark, odd):
    good = {
        "prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "red"}, "images": ["a.png"],
        "answer": "red", "task": "ocr", "image_1": "a.png",
    }  # fmt: skip
    items = list(load_benchmark(benchmark).load(write_json(tmp_path, [good, {**good, **odd}])))
    assert [bool(item.unread) for item in items] == [False, True]
    assert "row 2" in items[1].unread


def test_a_file_of_which_nothing_can_be_read_is_refused(tmp_path):
    bad = [row(n, "!" * 100) for n in range(3)]
    path = write(tmp_path / "V.tsv", bad)
    with pytest.raises(BenchmarkError, match=r"row 1: no image file .* \(and 2 more rows like it"):
        open_run(tmp_path / "run", settings_of("vstar", path), load_benchmark("vstar"), path)
    write(path, [row(0, b64(8, 8), "E"), row(1, b64(8, 8), "F")])
    with pytest.raises(BenchmarkError, match="row 1: answer 'E' is none of the options"):
        list(load_benchmark("vstar").load(path))


def test_two_items_of_one_name_are_refused(tmp_path):
    rows = [{"query": f"q{n}", "answer": "x", "id": "7"} for n in range(2)]
    with pytest.raises(BenchmarkError, match="row 2 is called '7', as .*row 1 was before"):
        list(load_benchmark("realx").load(write_json(tmp_path, rows)))


async def test_an_odd_row_is_never_asked(tmp_path):
    """No server is there: one question asked would end the run."""
    path = write(tmp_path / "V.tsv", [row("good", b64(8, 8)), row("odd", "!" * 100)])
    run, one = tmp_path / "run", load_benchmark("vstar")
    assert open_run(run, settings_of("vstar", path), one, path) == 1
    TrajectoryWriter(run).write(episode("A"), facts_of(read_items(run)["good"], "vstar"))
    servers = ModelServers(base_urls=("http://127.0.0.1:9/v1",), served_name="m", patience_s=0.0)
    await infer(run, one.load(path), settings_of("vstar", path), servers)


def test_answers_given_elsewhere_need_no_image(tmp_path):
    path = write(tmp_path / "V.tsv", [row("good", b64(8, 8)), row("odd", "!" * 100)])
    settings = settings_of("vstar", path, predictions="p.tsv")
    assert open_run(tmp_path / "run", settings, load_benchmark("vstar"), path) == 2


def test_what_a_scorer_raises_is_that_item_not_evaluated_with_its_id(tmp_path):
    rows = [
        {
            "prompt": "p",
            "answer": "1 2",
            "task": "jigsaw",
            "image_1": "a.png",
            "meta_data": {"difficulty": "hard"},
            "id": "odd",
        },
        {"prompt": "p", "answer": "A", "task": "color", "image_1": "a.png", "id": "even"},
    ]
    summary, found = scored(tmp_path, "tir_bench", write_json(tmp_path, rows))
    assert (found["even"].correct, found["odd"].correct, summary.evaluated) == (True, None, 1)
    assert found["odd"].decided_by == "scorer_failed"
    assert found["odd"].reason.startswith("item odd: the scorer of tir_bench raised ValueError: could not convert")


@pytest.mark.parametrize("answer", ["5²", "①"])
def test_a_text_like_a_number_is_left_to_the_judge(answer):
    from evaluation.benchmarks import Item

    item = Item(item_id="x", question="q", gold="5", fields={"answer_type": "float", "qid": "1", "varid": "1"})
    grade = asyncio.run(load_benchmark("dynamath").grade(item, Prediction(answer), grader()))
    assert (grade.correct, grade.decided_by) == (None, "no_judge")


AS_WRITTEN = ["Infinity", "3.10", "[1,2]", "null", "NaN", "1e3", '"quoted"', "007"]


@pytest.mark.parametrize("gold", AS_WRITTEN)
def test_a_gold_text_is_kept_as_it_is_written(tmp_path, gold):
    searched = {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": gold}, "images": ["a.png"]}
    (item,) = load_benchmark("fvqa").load(write_json(tmp_path, [searched]))
    assert json.loads(item.fields["golds"]) == [gold]


@pytest.mark.parametrize("gold", ["Infinity", "3.10", "null", "None", "N/A", "1e3", "007"])
def test_a_gold_in_a_table_is_kept_as_it_is_written(tmp_path, gold):
    path = write(tmp_path / "C.tsv", [row(0, b64(8, 8), gold, split="test_human")], columns=[*COLUMNS, "split"])
    assert [item.gold for item in load_benchmark("chartqa").load(path)] == [gold]


def test_a_number_of_json_is_shown_as_it_is_written(tmp_path):
    rows = '[{"query": "q", "answer": 3.10}, {"query": "q", "answer": Infinity}, {"query": "q", "answer": 1e3}]'
    assert [item.gold for item in load_benchmark("realx").load(write_json(tmp_path, rows))] == ["3.10", "Infinity", "1e3"]


def test_golds_that_the_benchmark_writes_as_json_are_a_list(tmp_path):
    reward = {"ground_truth": "3.1", "candidate_answers": '["3.10", 3.10, null, "e"]'}
    searched = {"prompt": [{"role": "user", "content": "q"}], "reward_model": reward, "images": ["a.png"]}
    (item,) = load_benchmark("fvqa").load(write_json(tmp_path, [searched]))
    assert json.loads(item.fields["golds"]) == ["3.10", "e", "3.1"]


def test_an_answer_of_an_article_alone_is_no_exact_match_of_another():
    from evaluation.benchmarks._search import plain

    assert plain("A") != plain("the")
    assert plain("The red car.") == "red car"


def test_a_gold_text_called_none_is_not_right_whatever_is_said():
    from evaluation.benchmarks import Item

    fields = {"question_type": "free_form", "answer_type": "text"}
    item = Item(item_id="x", question="q", gold="None", fields=fields)
    grade = asyncio.run(load_benchmark("mathvista").grade(item, Prediction("seven"), grader()))
    assert grade.correct is not True


def test_points_of_a_part_are_not_normed_as_if_they_were_of_all(tmp_path):
    rows = [row(n, b64(8, 8), "x", category="Regular Text Recognition") for n in range(3)]
    summary, _ = scored(tmp_path, "ocrbench", write(tmp_path / "O.tsv", rows))
    assert summary.scores["Final Score"] == 3
    assert "Final Score Norm" not in summary.scores


def test_a_run_over_a_file_with_an_odd_row_is_exported(tmp_path):
    path = write(tmp_path / "V.tsv", [row(0, b64(8, 8))])
    path.write_text(path.read_text() + "9\tabc\n")
    scored(tmp_path, "vstar", path)
    assert export(tmp_path / "run", "vlmevalkit", tmp_path / "out").read_text().count("\n") == 2


def test_answers_to_a_file_with_an_odd_row_are_imported_and_that_row_is_not_evaluated(tmp_path):
    path = write(tmp_path / "V.tsv", [row("good", b64(8, 8)), row("odd", b64(8, 8), "E")])
    told = write(tmp_path / "told.tsv", [row("good", "", prediction="A"), row("odd", "", "E", prediction="E")], columns=TOLD)
    run, one, settings = tmp_path / "run", load_benchmark("vstar"), settings_of("vstar", path, predictions=str(told))
    open_run(run, settings, one, path)
    assert import_predictions(run, read_items(run), told) == 2
    summary = asyncio.run(score(run, one, grader()))
    assert (summary.evaluated, summary.accuracy, summary.decided_by["unusable_row"]) == (1, 1.0, 1)
