"""The quickstart's page and its last words, made of recordings; a real quickstart is in tests/slow."""

import asyncio
import html
import json

import pytest
from rich.console import Console

from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter
from data.tiles import write_dataset
from deepeyes.quickstart.pipeline import _verdict
from deepeyes.quickstart.report import write_report
from evaluation.benchmarks import load_benchmark
from evaluation.reports.run_page import write_run_report
from evaluation.runs.folder import facts_of, open_run
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from judge.client import Judge, JudgeSettings
from tests.recorded_runs import CROP, episode


def evaluated(run, data, right):
    benchmark = load_benchmark("tiles")
    open_run(run, EvaluationSettings(benchmark="tiles", data=str(data), model="m", prompt="tiles"), benchmark, data)
    writer = TrajectoryWriter(run)
    for number, item in enumerate(benchmark.load(data)):
        answer = item.gold if right(number) else "purple"
        writer.write(episode(answer, code=CROP if item.category == "look" else None), facts_of(item, "tiles"))
    asyncio.run(score(run, benchmark, Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))


@pytest.fixture
def quickstart(tmp_path):
    write_dataset(tmp_path / "data", num_sft=8, num_rl=8, num_benchmark=16)
    data = tmp_path / "data/benchmark.jsonl"
    evaluated(tmp_path / "eval/sft", data, lambda number: number % 2 == 0)
    evaluated(tmp_path / "eval/rl", data, lambda number: True)
    writer = TrajectoryWriter(tmp_path / "rl/rollouts", shared=True)
    for step in (1, 2):
        for sample, category in enumerate(("look", "quick")):
            facts = RolloutFacts(step=step, category=category, sample=sample, correct=True, score=1.0, second_opinion="correct")
            writer.write(episode("red", code=CROP if step == 2 else None), facts)
    metrics = {"step": 1, "episode/score/mean": 0.5, "training/rollout_actor_probs_pearson_corr": 0.999999}
    (tmp_path / "rl/metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    return tmp_path


def test_the_page_tells_accuracy_tool_use_second_opinions_and_episodes(quickstart):
    write_report(quickstart, quickstart / "report.html", success_accuracy=0.9)
    page = (quickstart / "report.html").read_text()
    assert "Accuracy on 16 held-out questions went from" in page
    assert "50.0\u00a0%" in page
    assert "100.0\u00a0%" in page
    assert "This run passed" in page
    assert "An LLM judge behind vLLM was asked about 4 answers" in page
    assert page.count("<article>") == 4  # one question of each outcome that there was, before and after
    assert '"look" questions' in html.unescape(page)


def test_what_was_lost_and_what_is_still_wrong_stands_beside_what_was_learned(quickstart):
    evaluated(quickstart / "eval/rl", quickstart / "data/benchmark.jsonl", lambda number: number not in (0, 1))
    write_run_report(quickstart / "eval/rl", quickstart / "eval/rl/report.html")
    write_report(quickstart, quickstart / "report.html", success_accuracy=0.9)
    page = (quickstart / "report.html").read_text()
    for said in ("right after RL: 7, such", "Lost: right before, wrong after RL: 1, such", "Still wrong after RL: 1, such", "before and after: 7, such"):
        assert said in page
    assert page.count("<article>") == 8
    assert "This run fell short" in page
    assert 'href="eval/rl/report.html"' in page


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path):
    write_report(tmp_path, tmp_path / "report.html", success_accuracy=0.9)
    assert "What you are looking at" in (tmp_path / "report.html").read_text()


def test_the_last_words_are_of_what_was_measured(quickstart, capsys):
    assert _verdict(quickstart, Console(width=200))
    assert "rl   accuracy 100.0%, tool used on" in capsys.readouterr().out
    (quickstart / "eval/rl/episodes.jsonl").write_text("")
    benchmark = load_benchmark("tiles")
    asyncio.run(score(quickstart / "eval/rl", benchmark, Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))
    assert not _verdict(quickstart, Console(width=200)), "nothing was evaluated: that is no pass"
    assert "RL ended at none" in capsys.readouterr().out
