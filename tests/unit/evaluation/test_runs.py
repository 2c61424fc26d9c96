"""Scoring, comparing, reporting and exporting runs that were recorded; no model, no server."""

import asyncio
import csv
import io
import json
import re

import pytest

from agent.calls import CallFacts
from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter
from evaluation.analysis.analytics import CodeUse, analyse
from evaluation.analysis.compare import compare, compare_runs
from evaluation.analysis.compare import main as compare_main
from evaluation.benchmarks import load_benchmark
from evaluation.exchange.export import export
from evaluation.exchange.predictions import read_predictions
from evaluation.reports.leaderboard import main as leaderboard_main
from evaluation.reports.leaderboard import write_leaderboard
from evaluation.reports.names import short_names
from evaluation.reports.run_page import write_run_report
from evaluation.run import main as run_main
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import locked, open_run, read_items
from evaluation.runs.rejudge import rejudge
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.runs.summary import read_summary
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from evaluation.smoke.lookalikes import write_lookalike
from judge.client import Judge, JudgeSettings
from judge.rules import RULES_VERSION
from tests.recorded_runs import CROP, episode, make_run, right_or, stub


def test_what_was_not_evaluated_is_counted_by_reason_and_in_no_score(tmp_path):
    made = {"0": episode("A", failure="PolicyUnavailable: away"), "1": None, "2": episode("", num_tokens=0)}
    summary = make_run(tmp_path / "run", lambda item, _: made.get(item.item_id, episode(item.gold)))
    assert (summary.items, summary.evaluated, summary.not_evaluated) == (12, 9, 3)
    assert summary.accuracy == 1.0
    counted = {name: summary.decided_by[name] for name in ("failed", "not_run", "empty_reply")}
    assert counted == {"failed": 1, "not_run": 1, "empty_reply": 1}
    assert summary.failures == {"PolicyUnavailable: away": 1}


def test_several_samples_give_mean_and_pass_at_k(tmp_path):
    summary = make_run(
        tmp_path / "run", lambda item, sample: episode(item.gold if sample < 2 else "Z"), samples=4, temperature=1.0
    )
    assert summary.at_k == {
        "mean@4": 0.5,
        "pass@1": 0.5,
        "pass@2": pytest.approx(1 - 1 / 6),
        "pass@4": 1.0,
    }
    assert (summary.at_k_items, summary.items, summary.episodes) == (12, 12, 48)
    assert summary.headline_score == 0.5


def test_scoring_again_needs_no_file_and_no_model_and_asks_a_judge_nothing_twice(tmp_path):
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return "null"

    judge = stub(reply, cache=str(tmp_path / "cache.sqlite"))
    first = make_run(tmp_path / "run", lambda item, _: episode("about one"), benchmark="mathvista", judge=judge)
    count = len(asked)
    assert count > 0
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    again = stub(reply, cache=str(tmp_path / "cache.sqlite"))
    second = asyncio.run(score(tmp_path / "run", load_benchmark("mathvista"), Grader(load_profile("vlmevalkit"), again)))
    assert len(asked) == count
    assert second.scores == first.scores


def test_a_run_that_is_scored_again_says_under_which_rules_it_was_scored_before_and_now(tmp_path):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode("about one"))
    assert (read_summary(run).rules, read_summary(run).rules_before) == (RULES_VERSION, None)
    older = json.loads((run / "summary.json").read_text())
    del older["rules"], older["rules_before"]
    (run / "summary.json").write_text(json.dumps(older))
    assert read_summary(run).rules == "1"
    for _ in range(2):  # once more changes nothing
        asyncio.run(score(run, load_benchmark(older["benchmark"]), Grader(load_profile(older["profile"]), stub(lambda _: "1"))))
        assert (read_summary(run).rules, read_summary(run).rules_before) == (RULES_VERSION, "1")
    write_run_report(run, run / "report.html")
    assert f"{RULES_VERSION}, before 1" in (run / "report.html").read_text()


def test_a_benchmark_that_needs_a_judge_and_has_none_is_not_evaluated_and_says_so(tmp_path):
    summary = make_run(tmp_path / "run", lambda item, _: episode("4"), benchmark="charxiv_reasoning")
    assert summary.headline_score is None
    assert summary.decided_by == {"no_judge": 12}
    write_run_report(tmp_path / "run", tmp_path / "run/report.html")
    assert "no_judge 12" in (tmp_path / "run/report.html").read_text()


def test_episodes_of_another_benchmark_are_refused(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode("A"))
    TrajectoryWriter(tmp_path / "run").write(episode("A"), RolloutFacts(item_id="alien", gold="A"))
    with pytest.raises(RunMismatch, match="episodes of items that the benchmark does not have, such as 'alien'"):
        asyncio.run(
            score(tmp_path / "run", load_benchmark("vstar"), Grader(load_profile("vlmevalkit"), Judge(JudgeSettings())))
        )


@pytest.mark.parametrize(
    ("name", "message"), [("items.jsonl", "is broken"), ("scores.jsonl", "is broken"), ("run.json", "no JSON")]
)
def test_a_file_of_a_run_that_was_cut_off_is_named(tmp_path, name, message):
    make_run(tmp_path / "run", lambda item, _: episode("A"))
    path = tmp_path / "run" / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunMismatch, match=message):
        read_scores(tmp_path / "run") if name == "scores.jsonl" else asyncio.run(
            score(tmp_path / "run", load_benchmark("vstar"), Grader(load_profile("vlmevalkit"), Judge(JudgeSettings())))
        )


def test_a_run_is_written_by_one_process_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(RunMismatch, match="another process is writing"), locked(tmp_path):
        pass


ODD_TEXTS = ["line\u2028separator", "next\x85line", "half a pair \ud83d", "form\x0cfeed", "nul\x00"]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_of_a_model_is_scored_reported_compared_and_exported(tmp_path, text):
    make_run(tmp_path / "run", lambda item, _: episode(text, code=f"print({text!r})"))
    assert len(read_scores(tmp_path / "run")) == 12
    write_run_report(tmp_path / "run", tmp_path / "run/report.html", against=tmp_path / "run")
    for form in ("vlmevalkit", "lmms-eval", "inspect"):
        export(tmp_path / "run", form, tmp_path / form)
    (samples,) = (tmp_path / "lmms-eval").glob("*.jsonl")
    assert len(read_predictions(samples)) == 12


def test_a_question_with_an_odd_line_end_is_one_item(tmp_path):
    data = write_lookalike("chartqa", tmp_path / "data")
    data.write_text(data.read_text().replace("What is the value at 0?", "What is\u2028the value?"), newline="")
    settings = EvaluationSettings(benchmark="chartqa", data=str(data), model="m", prompt="deepeyesv2_code")
    assert open_run(tmp_path / "run", settings, load_benchmark("chartqa"), data) == len(read_items(tmp_path / "run")) == 8


def test_a_run_is_not_gone_on_with_over_a_file_that_has_changed(tmp_path):
    data = write_lookalike("chartqa", tmp_path / "data")
    settings = EvaluationSettings(benchmark="chartqa", data=str(data), model="m", prompt="deepeyesv2_code")
    open_run(tmp_path / "run", settings, load_benchmark("chartqa"), data)
    write_lookalike("chartqa", tmp_path / "data", count=9)
    with pytest.raises(RunMismatch, match=r"holds a run over another ChartQA_TEST\.tsv .*md5"):
        open_run(tmp_path / "run", settings, load_benchmark("chartqa"), data)


def test_a_run_that_was_not_scored_says_what_to_do(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode("A"))
    (tmp_path / "run/summary.json").unlink()
    for act in (
        lambda: write_run_report(tmp_path / "run", tmp_path / "r.html"),
        lambda: compare_runs(tmp_path / "run", tmp_path / "run"),
    ):
        with pytest.raises(RunMismatch, match=r"summary\.json is missing.*--stage score"):
            act()


# ---- analytics ----


def test_analytics_count_every_kind_of_use(tmp_path):
    def make(item, _):
        number = int(item.item_id)
        code = {0: CROP, 1: "print('x')", 2: "print(1 + 1)", 3: None}[number % 4]
        return episode(right_or(item), code=code, error="NameError" if number == 2 else "")

    make_run(tmp_path / "run", make)
    found = analyse(read_scores(tmp_path / "run"))
    assert (found.episodes, found.tool_rate, found.calls_histogram) == (12, 0.75, {0: 3, 1: 9})
    assert found.mix == {"crop": 3, "numerical": 3, "mark": 0, "other": 3, "image_search": 0, "search": 0}
    assert found.code == CodeUse(calls=9, succeeded=pytest.approx(8 / 9), errors={"NameError": 1}, placeholders=3)
    assert found.accuracy_by["first call"]["crop"].accuracy == 1.0
    assert found.accuracy_by["tool use"]["used none"].accuracy == 0.0
    assert found.well_formed == 1.0
    assert analyse([]) is None


# ---- two runs ----


def test_tools_on_against_off_gives_gain_harm_and_what_was_solved_without(tmp_path):
    make_run(tmp_path / "on", lambda item, _: episode(item.gold if int(item.item_id) < 8 else "Z", code=CROP))
    make_run(tmp_path / "off", lambda item, _: episode(item.gold if 4 <= int(item.item_id) < 10 else "Z"), mode="think")
    found = compare_runs(tmp_path / "on", tmp_path / "off")
    assert (found.items, found.first_accuracy, found.second_accuracy) == (12, 8 / 12, 0.5)
    assert (found.gain, found.harm, found.net) == pytest.approx((4 / 12, 2 / 12, 2 / 12))
    assert (found.solved_with_tools, found.also_without) == (8, 0.5)
    assert found.p_value == pytest.approx(0.6875)
    low, high = found.difference_interval
    assert low < 2 / 12 < high
    mirrored = compare_runs(tmp_path / "off", tmp_path / "on")
    assert (mirrored.gain, mirrored.harm, mirrored.p_value) == (found.harm, found.gain, found.p_value)


def test_runs_over_different_items_say_what_they_share(tmp_path, capsys):
    make_run(tmp_path / "a", lambda item, _: episode(item.gold) if int(item.item_id) < 8 else None)
    make_run(
        tmp_path / "b", lambda item, _: episode(item.gold) if int(item.item_id) >= 4 else None, profile="deepeyesv2-fork"
    )
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert (found.items, found.only_first, found.only_second) == (4, 4, 4)
    assert any("profile: vlmevalkit against deepeyesv2-fork" in warning for warning in found.warnings)
    compare_main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "4 only in" in capsys.readouterr().out
    make_run(tmp_path / "c", lambda item, _: None)
    with pytest.raises(RunMismatch, match="no evaluated item in common"):
        compare_runs(tmp_path / "a", tmp_path / "c")
    make_run(tmp_path / "d", lambda item, _: episode("1"), benchmark="chartqa")
    with pytest.raises(SystemExit, match="is a run of vstar, .* of chartqa"):
        compare_main([str(tmp_path / "a"), str(tmp_path / "d")])


def test_adaptiveness_of_a_model_that_always_calls_is_one_half():
    def rows(right, calls, samples):
        return [
            ScoreRow(
                item_id=str(n), sample=s, correct=right(n), score=float(right(n)), decided_by="rule:x",
                calls=(CallFacts(tool="python", kind="crop"),) * calls(n),
            )
            for n in range(10) for s in range(samples)
        ]  # fmt: skip

    without = rows(lambda n: n < 5, lambda n: 0, 5)
    always = compare(rows(lambda n: True, lambda n: 1, 1), without).adaptiveness
    assert always == {"MA_tool": 1.0, "MA_text": 0.0, "MA_mean": 0.5}
    adaptive = compare(rows(lambda n: True, lambda n: int(n >= 5), 1), without).adaptiveness
    assert adaptive["MA_mean"] == 1.0
    assert compare(without, without[:5]).adaptiveness == {}


def test_a_second_judge_is_compared_with_the_first(tmp_path):
    def make(item, _):
        return episode(f"quite {item.gold}-ish")

    make_run(tmp_path / "run", make, benchmark="simplevqa", judge=stub(lambda prompt: "CORRECT"))
    settings = JudgeSettings(base_urls=("http://127.0.0.1:9/v1",), attempts=1, patience_s=0)
    away = asyncio.run(rejudge(tmp_path / "run", settings, sample=5))
    assert (away["all"].compared, away["all"].undecided) == (0, 5)
    make_run(tmp_path / "rules", lambda item, _: episode(item.gold), benchmark="simplevqa")
    with pytest.raises(RunMismatch, match="no judge decided anything"):
        asyncio.run(rejudge(tmp_path / "rules", settings, sample=5))


# ---- reports ----


def test_a_report_is_one_file_with_provenance_warnings_and_lazy_images(tmp_path):
    make_run(tmp_path / "on", lambda item, _: episode(right_or(item), code=CROP), image_max_pixels=100_000)
    make_run(tmp_path / "off", lambda item, _: episode(item.gold), mode="think")
    write_run_report(tmp_path / "on", tmp_path / "on/report.html", against=tmp_path / "off")
    text = (tmp_path / "on/report.html").read_text()
    assert not re.search(r'src="(?!data:)|href="(?!#)|@import|url\(', text)
    assert "<title>V*: m</title>" in text
    assert 'Wrong here, right there</h4>\n<p class="paired">\n<span><a href="#1">1</a>' in text
    for part in (
        "scoring profile",
        "100000",
        "prompt",
        "published 81.8 is no k/191",
        "not comparable with any",
        "gain: right here",
    ):
        assert part in text, part
    before, _, data = text.partition('<script type="application/json" id="rows">')
    assert "data:image" not in before
    assert data.count("data:image/jpeg") == 2  # equal images are held once
    described = json.loads((tmp_path / "on/report.json").read_text())
    assert described["comparison"]["items"] == 12
    assert "| scoring profile | vlmevalkit |" in (tmp_path / "on/report.md").read_text()
    rows = list(csv.DictReader((tmp_path / "on/scores.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert rows[1]["correct"] == "False"


@pytest.mark.parametrize(
    ("said", "cell"),
    [("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("@SUM(1)", "'@SUM(1)"), ("+x", "'+x"), ("-5", "-5"), ("+1,000.5", "+1,000.5"), ("5", "5")],
)
def test_text_of_a_model_is_never_a_formula_of_a_spreadsheet(tmp_path, said, cell):
    make_run(tmp_path / "run", lambda item, _: episode(said))
    write_run_report(tmp_path / "run", tmp_path / "run/report.html")
    rows = list(csv.DictReader((tmp_path / "run/scores.csv").read_text().splitlines()))
    assert {row["prediction"] for row in rows} == {cell}


def test_text_of_a_model_is_never_markup_of_the_report(tmp_path):
    evil = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    make_run(tmp_path / "run", lambda item, _: episode(evil, code=f"print('''{evil}''')"))
    write_run_report(tmp_path / "run", tmp_path / "run/report.html")
    text = (tmp_path / "run/report.html").read_text()
    assert "<script>document.title" not in text
    assert "<img src=x" not in text.replace("\\u003c", "<")


def test_a_leaderboard_marks_what_cannot_be_compared(tmp_path, capsys):
    make_run(tmp_path / "runs/a", lambda item, _: episode(item.gold))
    make_run(tmp_path / "runs/b", lambda item, _: episode("Z"), mode="think", profile="deepeyesv2-fork")
    entries = write_leaderboard([tmp_path / "runs"], tmp_path / "out")
    assert [entry.score for entry in entries] == ["100.0\u00a0%", "0.0\u00a0%"]
    assert all("12 of 191 items" in entry.marks for entry in entries)
    text = (tmp_path / "out/leaderboard.md").read_text()
    assert 'vstar: profile differs: "deepeyesv2-fork"; "vlmevalkit"' in text
    assert "published: DeepEyesV2-7B" in (tmp_path / "out/leaderboard.html").read_text()
    assert {entry.label for entry in entries} == {"m · agent", "m · think"}
    leaderboard_main([str(tmp_path / "runs")])
    assert "| V* |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no scored run"):
        leaderboard_main([str(tmp_path / "nothing")])


def test_models_are_called_by_as_many_parts_of_their_folders_as_tell_them_apart():
    assert short_names(["/data/runs/one/models/rl", "/data/runs/one/models/sft", "Qwen/Qwen2.5-VL-7B"]) == {
        "/data/runs/one/models/rl": "rl", "/data/runs/one/models/sft": "sft", "Qwen/Qwen2.5-VL-7B": "Qwen2.5-VL-7B",
    }  # fmt: skip
    assert short_names(["/a/step_1/hf", "/a/step_2/hf", "hf"]) == {"/a/step_1/hf": "step_1/hf", "/a/step_2/hf": "step_2/hf", "hf": "hf"}


# ---- other harnesses' forms ----


def test_a_prediction_file_holds_the_benchmarks_rows_and_what_was_answered(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode(item.gold) if item.item_id != "3" else None)
    path = export(tmp_path / "run", "vlmevalkit", tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline=""), delimiter="\t"))
    assert path.name == "m_VStarBench.tsv"
    assert len(rows) == 11
    assert all(row["prediction"] == row["answer"] for row in rows)
    assert "image" not in rows[0]


def test_samples_for_lmms_eval_are_one_object_a_line(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode(right_or(item)))
    path = export(tmp_path / "run", "lmms-eval", tmp_path / "out")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.name.endswith("_samples_vstar.jsonl")
    assert [row["acc"] for row in rows] == [1.0, 0.0] * 6
    assert len({row["doc_hash"] for row in rows}) == 12


# ---- what another harness predicted ----


def evaluate_file(tmp_path, path, out):
    data = write_lookalike("vstar", tmp_path / "vstar", count=12)
    run_main(
        [
            "--benchmark",
            "vstar",
            "--data",
            str(data),
            "--model",
            "theirs",
            "--predictions",
            str(path),
            "--out",
            str(tmp_path / out),
        ]
    )
    return read_summary(tmp_path / out)


@pytest.mark.parametrize("form", ["vlmevalkit", "lmms-eval"])
def test_a_prediction_file_of_another_harness_is_scored_as_the_run_it_came_from(tmp_path, form):
    ours = make_run(tmp_path / "run", lambda item, _: episode(right_or(item)) if item.item_id != "3" else None)
    path = export(tmp_path / "run", form, tmp_path / "out")
    if form == "lmms-eval":
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["doc"]["index"] != "3"]
        path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit) as ended:
        evaluate_file(tmp_path, path, "scored")
    assert ended.value.code == 3  # 11 of 12 are less than 95 %
    theirs = read_summary(tmp_path / "scored")
    assert theirs.scores == ours.scores
    assert theirs.decided_by == ours.decided_by


def test_a_prediction_file_of_another_benchmark_or_one_that_was_cut_off_is_refused(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode("1"), benchmark="chartqa", count=20)
    alien = export(tmp_path / "run", "vlmevalkit", tmp_path / "out")
    with pytest.raises(SystemExit, match="answers 8 items that the benchmark does not have, such as '12'; is it another"):
        evaluate_file(tmp_path, alien, "a")
    cut = tmp_path / "cut.tsv"
    cut.write_text(alien.read_text()[:-12])
    with pytest.raises(SystemExit, match="was the file cut off"):
        evaluate_file(tmp_path, cut, "b")
    lines = tmp_path / "cut.jsonl"
    lines.write_text('{"doc_id": 0, "resps": [["A"]]}\n{"doc_id": 1, "res')
    with pytest.raises(SystemExit, match=r"cut\.jsonl:2 is no sample of lmms-eval"):
        evaluate_file(tmp_path, lines, "c")
    with pytest.raises(SystemExit, match="lacks the column prediction"):
        evaluate_file(tmp_path, write_lookalike("vstar", tmp_path / "x"), "d")
