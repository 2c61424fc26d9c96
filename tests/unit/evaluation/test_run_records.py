"""Files of a run: read as what they say, of any version, or refused by name; what is damaged is said and counted."""

import asyncio
import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls import KINDS, CallFacts
from agent.episode import Episode, Outage, StopReason
from agent.episode_rows import UnreadableRecord
from agent.records import EpisodeKey, Rollout, RolloutFacts, head_of
from agent.trajectory import TrajectoryWriter
from evaluation.analysis.compare import compare_runs
from evaluation.benchmarks import Item, load_benchmark
from evaluation.exchange.export import export
from evaluation.reports.leaderboard import read_entry
from evaluation.reports.run_page import write_run_report
from evaluation.run import main as run_main
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import Latest, facts_of, finished, open_run, read_items
from evaluation.runs.outages import recorded_outages
from evaluation.runs.provenance import read_provenance
from evaluation.runs.rows import ScoreRow, read_scores, write_scores
from evaluation.runs.score import score
from evaluation.runs.summary import read_summary
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from evaluation.statistics import totals
from judge.client import Judge, JudgeSettings
from tests.conftest import ROOT
from tests.recorded_runs import CROP, episode, make_run, right_or
from viewer.index import EpisodeIndex

OLD = ROOT / "tests/recorded/version_2/evaluation"


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(OLD, tmp_path / "old")


def score_again(run):
    grader = Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))
    return asyncio.run(score(run, load_benchmark("vstar"), grader))


# ---- runs of before ----


def test_a_run_of_before_is_read_under_todays_names(old):
    provenance, summary, rows = read_provenance(old), read_summary(old), read_scores(old)
    assert (provenance.settings.benchmark, provenance.settings.samples, provenance.settings.seed) == ("vstar", 2, 3)
    assert (provenance.version, provenance.data_md5[:4], provenance.started[:10]) == (1, "f804", "2026-11-26")
    assert (summary.items, summary.episodes, summary.evaluated, summary.not_evaluated) == (4, 8, 7, 1)
    assert [row.key for row in rows] == [EpisodeKey(str(item), sample) for item in range(4) for sample in range(2)]
    assert sum(row.tool_calls for row in rows) == sum(len(row.calls) for row in rows) == 5
    assert {call.kind for row in rows for call in row.calls} <= set(KINDS)


def test_the_accuracy_of_an_old_summary_is_counted_as_today_and_not_misread(old):
    saved = json.loads((old / "summary.json").read_text())
    assert saved["accuracy"] == pytest.approx(4.0 / 7)  # over episodes
    assert read_summary(old).accuracy == totals(read_scores(old)).accuracy == (1 + 1 + 0 + 0) / 4


def test_a_run_of_before_opens_in_report_leaderboard_comparison_and_exports(old):
    write_run_report(old, old / "report.html", against=old)
    assert "V*" in (old / "report.html").read_text()
    assert read_entry(old).label == "scripted · agent"
    assert compare_runs(old, old).items == 4
    for form in ("lmms-eval", "inspect"):
        assert export(old, form, old / form).stat().st_size > 0


def test_a_run_of_before_is_scored_again_with_the_same_verdicts(old):
    before, counted = read_scores(old), read_summary(old)
    again = score_again(old)
    assert [(row.key, row.correct, row.decided_by) for row in read_scores(old)] == [
        (row.key, row.correct, row.decided_by) for row in before
    ]
    assert (again.scores, again.accuracy, again.decided_by) == (counted.scores, counted.accuracy, counted.decided_by)
    assert json.loads((old / "summary.json").read_text())["version"] == 2


def test_a_run_of_before_is_scored_and_reported_by_the_command(old, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(["--out", str(old), "--stage", "score"])
    assert ended.value.code == 3  # one of its episodes failed
    assert json.loads(capsys.readouterr().out)["items"] == 4
    assert (old / "report.html").exists()


def test_a_run_of_before_is_not_gone_on_with_and_says_what_can_be_done(old, tmp_path):
    settings = read_provenance(old).settings
    with pytest.raises(RunMismatch, match=r"record has version 1.* it can be scored and looked at; give another --out"):
        open_run(old, settings, load_benchmark("vstar"), tmp_path / "none.tsv")


def test_a_setting_of_before_it_was_renamed_is_read_under_its_new_name(old):
    path = old / "run.json"
    path.write_text(path.read_text().replace('"image_max_pixels": 1003520', '"max_pixels": 100000'))
    assert read_provenance(old).settings.image_max_pixels == 100_000
    write_run_report(old, old / "report.html")
    assert "100000" in (old / "report.html").read_text()


# ---- newer and broken files ----


@pytest.mark.parametrize("name", ["run.json", "summary.json", "scores.jsonl"])
def test_a_file_of_a_newer_version_is_refused_by_name(tmp_path, name):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode(item.gold))
    path = run / name
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(RunMismatch, match=rf"{name}.* version 3, this code reads 1 to 2; update it"):
        write_run_report(run, run / "report.html")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", '"temperature": 0.0', '"temperature": "hot"', "settings.temperature: "),
        ("run.json", '"temperature": 0.0', '"heat": 0.0', "settings.heat: Extra inputs are not permitted"),
        ("run.json", '"prompt_sha256"', '"prompt_hash"', "prompt_sha256: Field required"),
        ("summary.json", '"items": 12', '"items": "twelve"', "items: Input should be a valid integer"),
        ("summary.json", '"judge": "none"', '"judges": "none"', "judge: Field required"),
        ("scores.jsonl", '"score": 1.0', '"score": null', "correct is True and score is None"),
        ("scores.jsonl", '"correct": true', '"correct": 1', "correct: Input should be a valid boolean"),
        ("scores.jsonl", '"failure": ""', '"failure": "away"', "yet there is a failure: 'away'"),
        ("scores.jsonl", '"sample": 0', '"trial": 0', "trial: Unexpected keyword argument"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_what_is_wrong(tmp_path, name, old, new, message):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode(item.gold))
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))
    with pytest.raises(RunMismatch, match=message):
        write_run_report(run, run / "report.html")


def test_an_unreadable_line_is_counted_in_the_summary_said_in_report_and_leaderboard_and_asked_again(tmp_path, caplog):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode(item.gold, code=CROP))
    path = run / "episodes.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b'"turns"', b'"tu\xffns"'), *lines[4:]]))
    summary = score_again(run)
    assert (summary.unreadable_lines, summary.evaluated, summary.decided_by["not_run"]) == (1, 11, 1)
    assert f"{path}:4 cannot be read and is left out" in caplog.text
    assert read_summary(run).unreadable_lines == 1
    write_run_report(run, run / "report.html")
    assert "1 lines of episodes.jsonl cannot be read" in (run / "report.html").read_text()
    assert "1 unreadable records left out" in read_entry(run).marks
    assert EpisodeKey("3") not in finished(run, read_provenance(run).settings)


def played(pattern):
    """Heads of episodes: of `a` one that was answered, of `-a` one that an outage ended."""
    items = [(name.lstrip("-"), name.startswith("-")) for name in pattern.split()]
    return [
        head_of(Rollout(broken() if failed else episode("x"), RolloutFacts(item_id=item, source="vstar")))
        for item, failed in items
    ]


def broken():
    return Episode(opening=(), end=Outage(reason="SandboxAway: gone"))


@pytest.mark.parametrize(
    ("pattern", "attempts", "repeated"),
    [
        ("a b -c d -c e -c", 3, {"c"}),
        ("a b -c d -c e -c c", 3, set()),
        ("a -b -c d -b -c -b -c", 6, {"b", "c"}),
        ("-a -b -a -b -a -b", 6, set()),
        ("x " + " ".join(3 * [f"-{number}" for number in range(20)]), 60, set()),
        ("x " + " ".join(3 * [f"-{number}" for number in range(20)]) + " y -3 y -3 y -3", 63, {"3"}),
    ],
)
def test_an_outage_follows_an_item_if_it_ends_all_its_attempts_while_others_are_answered(pattern, attempts, repeated):
    found = recorded_outages(played(pattern), enough=3)
    assert (found.attempts, {key.item_id for key in found.repeated}) == (attempts, repeated)


def test_a_last_line_cut_off_by_a_kill_is_not_counted(tmp_path):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode(item.gold))
    path = run / "episodes.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    summary = score_again(run)
    assert (summary.unreadable_lines, summary.decided_by["not_run"]) == (0, 1)


def test_an_episode_that_became_unreadable_after_it_was_indexed_is_left_out_and_counted(tmp_path):
    run = tmp_path / "run"
    make_run(run, lambda item, _: episode(item.gold))
    latest = Latest(run)
    path = run / "episodes.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"stop_reason": "answered"', b'"stop_reason": "answer\xff\xff"'))
    assert latest.get(EpisodeKey("3")) is None
    assert (latest.unreadable, len(latest)) == (1, 11)


# ---- rows ----

WORDS = st.text(st.characters(exclude_categories=()), max_size=12)
NUMBERS = st.integers(0, 99)
SECONDS = st.floats(0, 1e4)
CALLS = st.builds(CallFacts, tool=WORDS, kind=st.sampled_from(KINDS), error=WORDS, placeholder=st.booleans(), seconds=SECONDS)


@st.composite
def rows(draw):
    score = draw(st.none() | st.floats(0, 1))
    failure = draw(st.just("") | st.text("away ", min_size=1).filter(str.strip))
    ended = StopReason.FAILED if failure else draw(st.sampled_from([r for r in StopReason if r is not StopReason.FAILED]))
    return ScoreRow(
        item_id=draw(WORDS), sample=draw(NUMBERS), category=draw(WORDS), gold=draw(WORDS), prediction=draw(WORDS), score=score,
        correct=None if score is None else score == 1.0, decided_by=draw(WORDS), extracted=draw(WORDS),
        extra=draw(st.dictionaries(WORDS, WORDS | st.floats(0, 1), max_size=2)), stop_reason=ended, failure=failure,
        calls=tuple(draw(st.lists(CALLS, max_size=3))), tool_errors=draw(NUMBERS), wall_s=draw(SECONDS),
        format_errors=tuple(draw(st.lists(WORDS, max_size=2))), cut=draw(st.booleans()),
    )  # fmt: skip


def whole(value):
    """Half a surrogate pair, which stands in no file, is a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, tuple):
        return tuple(map(whole, value))
    if isinstance(value, CallFacts):
        return replace(value, tool=whole(value.tool), error=whole(value.error))
    return {whole(k): whole(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(st.lists(rows(), max_size=4))
def test_any_rows_are_read_as_they_were_written(tmp_path_factory, written):
    run = tmp_path_factory.mktemp("run")
    write_scores(run, written)
    names = ("item_id", "category", "gold", "prediction", "decided_by", "extracted", "extra", "calls", "format_errors")
    expected = [replace(row, **{name: whole(getattr(row, name)) for name in names}) for row in written]
    assert read_scores(run) in (written, expected)


def test_a_row_that_contradicts_itself_cannot_be_made():
    with pytest.raises(UnreadableRecord, match="it was evaluated or it was not"):
        ScoreRow(item_id="a", correct=None, score=1.0, decided_by="x")
    with pytest.raises(UnreadableRecord, match="no failure says what broke"):
        ScoreRow(item_id="a", correct=None, score=None, decided_by="failed", stop_reason=StopReason.FAILED)


def test_an_item_is_kept_whole_or_refused():
    item = Item(item_id="1", question="q\u2028?", gold="A", choices={"A": "x"}, fields={"h": "é"})
    assert Item.from_json(item.to_json()) == item
    with pytest.raises(UnreadableRecord, match="answer: Unexpected keyword argument"):
        Item.from_json(json.dumps(json.loads(item.to_json()) | {"answer": "A"}))


# ---- accuracy with several samples ----


def uneven(item, sample):
    """Two items of which one sample failed, others half right."""
    number = int(item.item_id)
    if sample == 1 and number in (0, 1):
        return episode("", failure="PolicyUnavailable: away")
    return episode(right_or(item) if sample == 0 else item.gold)


def test_accuracy_is_a_mean_over_items_and_not_over_episodes(tmp_path):
    summary = make_run(tmp_path / "run", uneven, samples=2, temperature=1.0)
    assert (summary.items, summary.episodes, summary.evaluated) == (12, 24, 22)
    assert summary.accuracy == pytest.approx((1 + 0 + 5 * 1 + 5 * 0.5) / 12)
    assert summary.correct / summary.evaluated != pytest.approx(summary.accuracy)


@pytest.mark.parametrize("make", [uneven, lambda item, sample: episode(right_or(item)) if sample != 2 else None])
def test_the_viewer_shows_the_accuracy_that_the_evaluation_counts(tmp_path, make):
    run = tmp_path / "run"
    summary = make_run(run, make, samples=3, temperature=1.0)
    writer = TrajectoryWriter(run)
    for item in list(read_items(run).values())[:3]:  # an attempt that failed once more, and was repeated
        made = make(item, 0)
        for one in (episode("", failure="SandboxAway: gone"), made):
            writer.write(one, facts_of(item, "vstar", 0))
    summary = score_again(run)
    index = EpisodeIndex(run)
    page = index.page({}, limit=1000)
    assert (page.items, page.accuracy) == (summary.items, pytest.approx(summary.accuracy))
    for name, counted in summary.categories.items():
        assert index.page({"category": name}).accuracy == pytest.approx(counted.accuracy)
    by_key = {row.key: row.score for row in read_scores(run)}
    shown = {EpisodeKey(row.item_id, row.sample): row.score for row in page.rows}  # the last of a key counts
    assert shown == {key: by_key[key] for key in shown}
    assert sum(row.score is not None for row in page.rows) == summary.evaluated
    for item, row in index.items().items():
        scores = [value for key, value in by_key.items() if key.item_id == item and value is not None]
        assert row.score == (pytest.approx(sum(scores) / len(scores)) if scores else None)
