"""The quickstart's page and its last words, made of recordings; a real quickstart is in tests/slow."""

import asyncio
import json
import shutil

import pytest
from rich.console import Console

from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter
from data.families import load_family
from data.families._files import Amounts, write_family
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


def evaluated(run, data, right, looks):
    benchmark = load_benchmark("families")
    open_run(run, EvaluationSettings(benchmark="families", data=str(data), model="m", prompt="tiles"), benchmark, data)
    writer = TrajectoryWriter(run)
    for number, item in enumerate(benchmark.load(data)):
        answer = item.gold if right(number) else "purple"
        writer.write(episode(answer, code=CROP if looks(item.category) else None), facts_of(item, "families"))
    asyncio.run(score(run, benchmark, Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))


@pytest.fixture
def quickstart(tmp_path):
    write_family(load_family("mark"), tmp_path / "data", amounts=Amounts(sft=1, rl_train=1, benchmark=16))
    data = tmp_path / "data/benchmark.tsv"
    evaluated(tmp_path / "eval/sft", data, lambda number: number % 2 == 0, lambda kind: True)
    evaluated(tmp_path / "eval/rl", data, lambda number: True, lambda kind: kind == "crop")
    writer = TrajectoryWriter(tmp_path / "rl/rollouts", shared=True)
    for step in (1, 2):
        for sample, category in enumerate(("crop", "direct")):
            facts = RolloutFacts(step=step, category=category, sample=sample, correct=True, score=1.0, second_opinion="correct")
            writer.write(episode("red", code=CROP if step == 2 else None), facts)
    metrics = {"step": 1, "episode/score/mean": 0.5, "training/rollout_actor_probs_pearson_corr": 0.999999}
    (tmp_path / "rl/metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    return tmp_path


def test_the_page_tells_accuracy_tool_use_second_opinions_and_episodes(quickstart):
    write_report(quickstart, quickstart / "report.html")
    page = (quickstart / "report.html").read_text()
    words = " ".join(page.split())
    assert "The share of 16 held-out questions on which the tool was used" in words
    assert 'went from <strong>0.00</strong> after the cold start to <strong class="good">1.00</strong> after RL' in words
    assert "50.0\u00a0%" in page
    assert "100.0\u00a0%" in page
    assert "This run passed" in page
    assert "An LLM judge behind vLLM was asked about 4 answers" in page
    assert page.count("<article>") == 6  # one question of each outcome that there was, before and after
    assert "small mark: a crop is needed" in page


def test_what_was_lost_and_what_is_still_wrong_stands_beside_what_was_learned(quickstart):
    evaluated(quickstart / "eval/rl", quickstart / "data/benchmark.tsv", lambda number: number not in (0, 1), lambda kind: True)
    write_run_report(quickstart / "eval/rl", quickstart / "eval/rl/report.html")
    write_report(quickstart, quickstart / "report.html")
    page = (quickstart / "report.html").read_text()
    for said in ("right after RL: 7, such", "Lost: right before, wrong after RL: 1, such", "Still wrong after RL: 1, such", "in the same way: 7, such"):
        assert said in page
    assert page.count("<article>") == 8
    assert "This run fell short" in page
    assert 'href="eval/rl/report.html"' in page


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path):
    write_report(tmp_path, tmp_path / "report.html")
    assert "What you are looking at" in (tmp_path / "report.html").read_text()


def test_the_last_words_are_of_what_was_measured(quickstart, capsys):
    assert _verdict(quickstart, Console(width=200))
    assert "rl   accuracy 100.0%, tool used on 100.0% of questions that need it and on 0.0% of the others" in capsys.readouterr().out
    (quickstart / "eval/rl/episodes.jsonl").write_text("")
    benchmark = load_benchmark("families")
    asyncio.run(score(quickstart / "eval/rl", benchmark, Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))
    assert not _verdict(quickstart, Console(width=200)), "nothing was evaluated: that is no pass"
    assert "After RL accuracy ended at none" in capsys.readouterr().out


def test_a_tool_that_is_used_everywhere_is_no_pass_however_right_the_answers_are(quickstart, capsys):
    data = quickstart / "data/benchmark.tsv"
    shutil.rmtree(quickstart / "eval/rl")
    evaluated(quickstart / "eval/rl", data, lambda number: True, lambda kind: True)
    assert not _verdict(quickstart, Console(width=200))
    assert "After RL adaptivity ended at 0.00, below the 0.50 of a healthy run" in capsys.readouterr().out
    write_report(quickstart, quickstart / "report.html")
    assert "This run fell short" in (quickstart / "report.html").read_text()
