"""Answers of other harnesses: what counts as one, whose questions they are of, and what is said of where they come from."""

import csv
import json
import zipfile

import pytest

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import Malformed
from code_sandbox.command_line import MISTAKE
from evaluation.analysis.compare import compare_runs
from evaluation.benchmarks import load_benchmark
from evaluation.exchange.export import export
from evaluation.reports.leaderboard import conflicts, read_entry, write_leaderboard
from evaluation.run import main as run_main
from evaluation.runs.rows import read_scores
from evaluation.runs.summary import read_summary
from evaluation.smoke.lookalikes import lookalike_names, write_lookalike
from tests.recorded_runs import episode, make_run

FAILED = "Failed to obtain answer via API."


def asked(tmp_path, benchmark, path, out="run", **more):
    """A file is imported and scored; the exit code of a command that ends, or what it said of a mistake, and its summary."""
    data = write_lookalike(benchmark, tmp_path / benchmark, count=12)
    given = {"benchmark": benchmark, "data": data, "model": "theirs", "predictions": path, "out": tmp_path / out} | more
    code = 0
    try:
        run_main([word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))])
    except SystemExit as ended:
        code = str(ended) if ended.code == MISTAKE else ended.code
    return code, read_summary(tmp_path / out) if (tmp_path / out / "summary.json").exists() else None


def items_of(tmp_path, benchmark):
    data = write_lookalike(benchmark, tmp_path / benchmark, count=12)
    return list(load_benchmark(benchmark).load(data))


def samples(tmp_path, answers, *, targets=None, name="samples.jsonl"):
    """A file of lmms-eval: id -> what the model wrote."""
    targets = targets or {}
    lines = [
        {"doc_id": item_id, "doc": {"index": item_id}, "resps": [[said]], "filtered_resps": [said]}
        | ({"target": targets[item_id]} if item_id in targets else {})
        for item_id, said in answers.items()
    ]
    (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / name


def table(tmp_path, rows, name="m_bench.tsv"):
    """A file of VLMEvalKit."""
    with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / name


# ---- what is an answer ----


@pytest.mark.parametrize("benchmark", ["ocrbench", "mme_realworld_lite", "chartqa", "vstar"])
@pytest.mark.parametrize(
    "form", ["<think>Is it {wrong}? Both {wrong} and E. No.</think> {gold}", "Both {wrong}</think>\n{gold}"]
)
def test_thoughts_before_an_answer_are_not_scored(tmp_path, benchmark, form):
    items = items_of(tmp_path, benchmark)
    golds = {item.item_id: item.gold.strip("[]'\"").split("', '")[0] for item in items}
    answers = {key: form.format(gold=gold, wrong="A" if gold != "A" else "B") for key, gold in golds.items()}
    _, plain = asked(tmp_path, benchmark, samples(tmp_path, golds, name="plain.jsonl"), "plain")
    code, thought = asked(tmp_path, benchmark, samples(tmp_path, answers))
    assert (code, thought.scores) == (0, plain.scores)
    said = [row.prediction for row in read_scores(tmp_path / "run")]
    assert said == [row.prediction for row in read_scores(tmp_path / "plain")]


def test_an_answer_in_tags_is_read_as_that_of_a_run_of_ours(tmp_path):
    items = items_of(tmp_path, "vstar")
    path = samples(tmp_path, {item.item_id: f"<think>B or C?</think><answer>{item.gold}</answer>" for item in items})
    code, summary = asked(tmp_path, "vstar", path)
    assert (code, summary.accuracy) == (0, 1.0)


@pytest.mark.parametrize("mark", [FAILED, f" {FAILED}\n", "", "nan", "NaN", "None"])
@pytest.mark.parametrize("form", ["lmms-eval", "vlmevalkit"])
def test_what_is_no_answer_of_a_model_is_not_evaluated_and_never_wrong(tmp_path, capsys, mark, form):
    items = items_of(tmp_path, "vstar")
    answers = {item.item_id: mark if number < 2 else item.gold for number, item in enumerate(items)}
    if form == "lmms-eval":
        path = samples(tmp_path, answers)
    else:
        path = table(tmp_path, [{"index": key, "prediction": said} for key, said in answers.items()])
    code, summary = asked(tmp_path, "vstar", path)
    assert (summary.accuracy, summary.not_evaluated, code) == (1.0, 2, 3)
    assert summary.decided_by["failed"] == 2
    said = capsys.readouterr().err
    assert "only 10 of 12 episodes were evaluated" in said
    assert f"(2 x): the file holds no answer here but {mark.strip()!r}" in said
    assert "the file holds no answer here" in (tmp_path / "run/report.html").read_text()
    assert "the file holds no answer here" in (tmp_path / "run/report.md").read_text()


def test_a_model_that_wrote_nothing_behind_its_thoughts_did_answer(tmp_path):
    items = items_of(tmp_path, "vstar")
    rows = [{"index": item.item_id, "prediction": "", "thinking": "<think>It is B.</think>"} for item in items]
    _, summary = asked(tmp_path, "vstar", table(tmp_path, rows))
    assert (summary.evaluated, summary.accuracy) == (12, 0.0)


def test_an_excel_file_is_said_to_be_one(tmp_path):
    (tmp_path / "m_VStarBench.xlsx").write_bytes(b"PK\x03\x04\xff")
    code, _ = asked(tmp_path, "vstar", tmp_path / "m_VStarBench.xlsx")
    assert "is an Excel file" in code
    assert "save it as tab-separated" in code


# ---- whose questions ----


def test_answers_in_another_order_are_refused_by_the_right_answer_that_their_file_names(tmp_path):
    items = items_of(tmp_path, "vstar")
    turned = {item.item_id: items[(number + 1) % 12].gold for number, item in enumerate(items)}
    wrong = [item.item_id for item in items if turned[item.item_id] != item.gold]
    code, summary = asked(tmp_path, "vstar", samples(tmp_path, turned, targets=turned))
    assert summary is None
    assert f"contradicts the benchmark in {len(wrong)} of 12 rows" in code
    first = next(item for item in items if item.item_id == wrong[0])
    assert f"the right answer is {turned[wrong[0]]!r} there, and item {wrong[0]!r} has the gold {first.gold!r}" in code
    assert f"samples.jsonl:{1 + int(wrong[0])}: " in code


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("answer", "Z", "the right answer is 'Z' there"),
        ("question", "How many cats are there?", "the question is 'How many cats are there?' there"),
        ("B", "a zebra", "option B is 'a zebra' there"),
    ],
)
def test_a_row_of_another_version_of_the_benchmark_is_refused_by_name(tmp_path, column, value, said):
    make_run(tmp_path / "ours", lambda item, _: episode(item.gold))
    path = export(tmp_path / "ours", "vlmevalkit", tmp_path / "out")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rows[4][column] = value
    code, summary = asked(tmp_path, "vstar", table(tmp_path, rows, path.name))
    assert summary is None
    assert f"{path.name}, row 5: {said}, and item '4' has the" in code
    assert "contradicts the benchmark in 1 of 12 rows" in code
    assert "take these rows out" in code


def test_a_right_answer_that_is_only_written_otherwise_contradicts_nothing(tmp_path):
    items = items_of(tmp_path, "vstar")
    targets = {item.item_id: f"({item.gold.lower()})" for item in items}
    targets[items[0].item_id] = items[0].choices[items[0].gold]
    targets[items[1].item_id] = [items[1].gold]
    code, summary = asked(tmp_path, "vstar", samples(tmp_path, {item.item_id: item.gold for item in items}, targets=targets))
    assert (code, summary.accuracy) == (0, 1.0)


# ---- one run, one file ----


def test_a_file_that_has_changed_is_refused_and_an_equal_one_is_scored_again(tmp_path):
    items = items_of(tmp_path, "vstar")
    path = samples(tmp_path, {item.item_id: item.gold for item in items})
    _, first = asked(tmp_path, "vstar", path)
    assert len(json.loads((tmp_path / "run/run.json").read_text())["predictions_md5"]) == 32
    assert asked(tmp_path, "vstar", path) == (0, first)
    path = samples(tmp_path, {item.item_id: "Z" for item in items})
    code, again = asked(tmp_path, "vstar", path)
    assert "before it changed" in code
    assert again == first
    assert len(read_scores(tmp_path / "run")) == 12


def test_a_file_that_was_refused_may_be_mended(tmp_path):
    items = items_of(tmp_path, "vstar")
    path = samples(tmp_path, {"no such item": "A"})
    code, _ = asked(tmp_path, "vstar", path)
    assert "does not have, such as 'no such item'" in code
    path = samples(tmp_path, {item.item_id: item.gold for item in items})
    assert asked(tmp_path, "vstar", path)[0] == 0


# ---- where they come from ----


def test_a_run_of_imported_answers_says_so_and_nothing_of_a_prompt_or_a_temperature(tmp_path):
    items = items_of(tmp_path, "vstar")
    path = samples(tmp_path, {item.item_id: item.gold for item in items})
    asked(tmp_path, "vstar", path)
    recorded = json.loads((tmp_path / "run/run.json").read_text())
    assert recorded["settings"].keys() == {"benchmark", "data", "model", "samples", "predictions", "limit"}
    assert recorded["prompt_sha256"] == ""
    write_leaderboard([tmp_path / "run"], tmp_path / "board")
    inside = zipfile.ZipFile(export(tmp_path / "run", "inspect", tmp_path / "out"))
    assert json.loads(inside.read("header.json"))["eval"]["metadata"] == {"imported_from": str(path)}
    for page in ("run/report.html", "run/report.md", "board/leaderboard.html"):
        text = (tmp_path / page).read_text()
        assert f"imported from {path} (md5 {recorded['predictions_md5']})" in text
        for own in ("deepeyesv2_code", "temperature", "mode agent", "tokens written"):
            assert own not in text, (page, own)
    assert "theirs · imported" in (tmp_path / "board/leaderboard.md").read_text()


def test_imported_answers_beside_asked_ones_are_marked_once(tmp_path):
    items = items_of(tmp_path, "vstar")
    asked(tmp_path, "vstar", samples(tmp_path, {item.item_id: item.gold for item in items}))
    make_run(tmp_path / "ours", lambda item, _: episode(item.gold))
    for runs in ((tmp_path / "run", tmp_path / "ours"), (tmp_path / "ours", tmp_path / "run")):
        assert [warning.partition(":")[0] for warning in compare_runs(*runs).warnings] == ["answers"]
        notes = conflicts([read_entry(run) for run in runs])
        assert notes == ['vstar: answers differs: "asked for here"; "imported"']


# ---- there and back ----

LONG = "so it goes, " * 400
ODD = (
    "\r",
    "a\rb",
    "tab\there",
    'quote " here',
    "\n\nlines\n",
    " blank",
    "</think> 7",
    "nan",
    FAILED[:20],
    "=1+1",
    "'",
    "\u2028x",
)


def replies(item, number):
    """Answers of every kind: right, wrong, long, odd, none, and those that nobody could give."""
    if number == 2:
        return None
    if number == 3:
        return episode("", failure="SandboxAway: gone")
    if number == 4:
        return episode("", num_tokens=0)
    if number == 5:
        turns = [
            Reply(text="<think>Box <box>[1,2,21,22]</box></think><code>", finish="stop"),
            Reply(text="I believe", finish="stop"),
        ]
        turns = [Turn(reply=reply, action=Malformed("no action")) for reply in turns]
        return Episode(opening=(Message("user", "q"),), turns=turns, end=StopReason.NO_ACTION)
    if number % 2:
        return episode(item.gold if number > 8 else f"{LONG}{item.gold}")
    return episode(ODD[number % len(ODD)])


def tabled(name):
    """Whether VLMEvalKit has a prediction file of its look-alike, which is of shards for MME-RealWorld."""
    return next(iter(load_benchmark(name).files)).endswith(".tsv") and name != "mme_realworld"


FORMS = [(name, form) for name in lookalike_names() for form in ("lmms-eval", "vlmevalkit") if form[0] == "l" or tabled(name)]


@pytest.mark.parametrize(("benchmark", "form"), FORMS)
def test_what_is_exported_and_imported_again_has_equal_scores(tmp_path, benchmark, form):
    made = iter(range(1000))
    ours = make_run(tmp_path / "ours", lambda item, _: replies(item, next(made)), benchmark=benchmark)
    path = export(tmp_path / "ours", form, tmp_path / "out")
    given = {"data": json.loads((tmp_path / "ours/run.json").read_text())["settings"]["data"]}
    assert asked(tmp_path, benchmark, path, **given, stage="infer") == (0, None)
    assert asked(tmp_path, benchmark, path, **given, stage="score")[0] in (0, 3)
    before, after = read_scores(tmp_path / "ours"), read_scores(tmp_path / "run")
    assert [row.item_id for row in after] == [row.item_id for row in before]
    assert [(row.score, row.partial, row.extra) for row in after] == [(row.score, row.partial, row.extra) for row in before]
    assert [row.prediction.strip() for row in after] == [row.prediction.strip() for row in before]
    assert read_summary(tmp_path / "run").scores == ours.scores


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("form", ["lmms-eval", "vlmevalkit"])
def test_an_odd_answer_comes_back_as_it_was(tmp_path, form, text):
    make_run(tmp_path / "ours", lambda item, _: episode(f"{text}{item.gold}"))
    path = export(tmp_path / "ours", form, tmp_path / "out")
    asked(tmp_path, "vstar", path)
    before, after = ([row.prediction for row in read_scores(tmp_path / name)] for name in ("ours", "run"))
    assert [said.replace("\r", "") for said in after] == [said.replace("\r", "") for said in before]


def test_each_sample_of_an_item_comes_back(tmp_path):
    ours = make_run(tmp_path / "ours", lambda item, sample: episode(item.gold if sample else "Z"), samples=2)
    path = export(tmp_path / "ours", "lmms-eval", tmp_path / "out")
    code, _ = asked(tmp_path, "vstar", path)
    assert "give --samples 2" in code
    code, theirs = asked(tmp_path, "vstar", path, "both", samples=2)
    assert (code, theirs.scores, theirs.at_k) == (0, ours.scores, ours.at_k)


def test_ids_that_are_alike_in_a_file_name_are_several_samples_of_a_log(tmp_path, monkeypatch):
    ids = ["a/b", "a_b", "a b", "A b", "a_b~2"]
    make_run(tmp_path / "run", lambda item, _: episode(item.gold), count=len(ids))
    path = tmp_path / "run/scores.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"item_id": one}) + "\n" for row, one in zip(rows, ids, strict=True)))
    names = zipfile.ZipFile(export(tmp_path / "run", "inspect", tmp_path / "out")).namelist()
    inside = [name for name in names if name.startswith("samples/")]
    assert len({name.casefold() for name in inside}) == len(ids)
