"""The reference's own `evaluate()` on the same predictions, benchmark by benchmark; it runs in an environment of its own."""

import json
import subprocess

import httpx
import pytest

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer
from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import load_benchmark
from evaluation.exchange.export import export
from evaluation.runs.folder import facts_of, open_run
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from evaluation.smoke.lookalikes import write_lookalike
from judge.client import Judge, JudgeSettings
from tests.conftest import ROOT
from tests.oracle import predictions as kinds
from tests.oracle.stub import StubJudge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# benchmark: (kind of predictions, module, class, data set, judge)
JOBS = {
    "vstar": (kinds.choice, "image_mcq", "ImageMCQDataset", "VStarBench", "stub"),
    "seedbench2_plus": (kinds.choice, "image_mcq", "ImageMCQDataset", "SEEDBench2_Plus", "stub"),
    "hrbench4k": (kinds.choice, "image_mcq", "HRBenchDataset", "HRBench4K", "stub"),
    "hrbench8k": (kinds.choice, "image_mcq", "HRBenchDataset", "HRBench8K", "exact_matching"),
    "treebench": (kinds.boxed_letter, "image_mcq", "TreeBench", "TreeBench", "stub"),
    "mme_realworld_lite": (kinds.letter, "image_mcq", "MMERealWorld", "MME-RealWorld-Lite", "stub"),
    "ocrbench": (kinds.contained, "image_vqa", "OCRBench", "OCRBench", "stub"),
    "charxiv_descriptive": (kinds.graded, "charxiv", "CharXiv", "CharXiv_descriptive_val", "stub"),
    "charxiv_reasoning": (kinds.graded, "charxiv", "CharXiv", "CharXiv_reasoning_val", "stub"),
    "chartqa": (kinds.charted, "image_vqa", "ImageVQADataset", "ChartQA_TEST", "stub"),
    "mathvista": (kinds.value, "image_vqa", "MathVista", "MathVista_MINI", "stub"),
    "mathverse": (kinds.judged_value, "image_vqa", "MathVerse", "MathVerse_MINI", "stub"),
    "mathvision": (kinds.vision, "image_vqa", "MathVision", "MathVision", "stub"),
    "wemath": (kinds.wemath_rule, "image_mcq", "WeMath", "WeMath", "exact_matching"),
    "dynamath": (kinds.short, "dynamath", "Dynamath", "DynaMath", "stub"),
    "logicvista": (kinds.letters, "image_vqa", "LogicVista", "LogicVista", "stub"),
}
COUNTS = {"wemath": 1890, "dynamath": 60, "mathvision": 40}


def percent(value):
    return float(str(value).split("%")[0]) / 100


def rotations(found):
    rows = [row for row in found if row["cycle"] == "Average"]
    return {"Overall" if row["type"] == "all" else row["type"]: row["accuracy"] for row in rows}


def tree(found):
    table = {name: found[name] for name in ("Overall", "mIoU") if name in found}
    for task in ("Perception", "Reasoning"):
        for name, values in found[task].items():
            if name == "Avg":
                table[task] = values
            elif isinstance(values, dict):
                table |= {f"{task}/{name}" + ("" if fine == "Avg" else f"/{fine}"): v for fine, v in values.items()}
            else:
                table[f"{task}/{name}"] = values
    return table


def listed(column, value):
    return lambda found: {row[column]: row[value] / 100 for row in found}


def problems(found):
    names = ("Score (Strict)", "Score (Loose)", "One-step(S1)", "Two-step(S2)", "Three-step(S3)", "CompleteMastery (Strict)")
    table = {name: percent(found[0][name]) for name in (*names, "CompleteMastery (Loose)", "RoteMemorization (Loose)")}
    return table | {"InsufficientKnowledge": percent(found[0]["InsufficientKnowledge (Loose)"])}


def settings(found):
    table = {}
    for row in found:
        setting = row["Setting"]
        table |= {setting if k == "Overall" else f"{setting}: {k}": v for k, v in row.items() if k != "Setting"}
    return table


def first_row(found):
    return {name: value for name, value in found[0].items() if name != "split"}


def points(found):
    """Without what the reference gives for 48 items as if 1,000 had been asked."""
    return {name: value for name, value in found.items() if name != "Final Score Norm"}


FLAT = {
    "hrbench4k": rotations, "hrbench8k": rotations, "treebench": tree, "mme_realworld_lite": tree, "ocrbench": points,
    "chartqa": lambda found: {name: value / 100 for name, value in found[0].items()},
    "mathvista": listed("Task&Skill", "acc"), "logicvista": listed("Task&Skill", "acc"), "mathvision": listed("Subject", "acc"),
    "mathverse": listed("split", "Overall"), "wemath": problems, "dynamath": settings,
}  # fmt: skip
"""The reference's tables under our names, as shares."""


def opened_run(directory, name, data):
    settings = EvaluationSettings(benchmark=name, data=str(data), model="m", prompt="deepeyesv2_code", mode="think")
    open_run(directory, settings, load_benchmark(name), data)
    return list(load_benchmark(name).load(data))


def record(directory, items, predictions):
    writer = TrajectoryWriter(directory)
    for item in items:
        said = predictions[item.item_id]
        reply = Reply(text=f"<answer>{said}</answer>", finish="stop", num_tokens=5)
        turn = Turn(reply=reply, action=FinalAnswer(said))
        episode = Episode(opening=(Message("user", "q"),), turns=[turn], end=StopReason.ANSWERED, answer=said)
        writer.write(episode, facts_of(item, "any"))


def stub_judge(table, *, llm=True):
    judge = StubJudge(table)

    def handle(request):
        prompt = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(200, json={"choices": [{"message": {"content": judge.reply(prompt)}}]})

    urls = ("http://stub/v1",) if llm else ()
    return Judge(JudgeSettings(base_urls=urls, attempts=1), transport=httpx.MockTransport(handle))


@pytest.fixture(scope="module")
def oracle_python():
    found = subprocess.run(["bash", "scripts/oracle.sh"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def both(oracle_python, tmp_path_factory):
    """benchmark -> (our scores, the reference's)."""
    import asyncio

    folder = tmp_path_factory.mktemp("oracle")
    ours, jobs = {}, []
    for name, (kind, module, class_, dataset, model) in JOBS.items():
        data = write_lookalike(name, folder / name, count=COUNTS.get(name, 48), charxiv_key="extract_answer")
        items = opened_run(folder / name / "run", name, data)
        predictions, table = kinds.make(items, kind, seed=3)
        record(folder / name / "run", items, predictions)
        judge = stub_judge(table, llm=model == "stub")
        grader = Grader(load_profile("ms-vlmeval"), judge, parity=True)
        ours[name] = asyncio.run(score(folder / name / "run", load_benchmark(name), grader)).scores
        path = export(folder / name / "run", "vlmevalkit", folder / name / "export")
        jobs.append(
            {"benchmark": name, "module": module, "class": class_, "dataset": dataset, "model": model, "predictions": str(path),
             "judge": table}
        )  # fmt: skip
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [
        oracle_python,
        str(ROOT / "tests/oracle/reference.py"),
        str(folder / "jobs.json"),
        str(folder / "results.json"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads((folder / "results.json").read_text())
    (folder / "ours.json").write_text(json.dumps(ours))
    return {name: (ours[name], theirs[name]) for name in JOBS}


@pytest.mark.parametrize("name", JOBS)
def test_the_reference_gives_the_same_scores(both, name):
    ours, found = both[name]
    assert "error" not in found, found
    theirs = FLAT.get(name, first_row)(found["table"])
    assert len(theirs) >= 3
    for key, value in theirs.items():
        if key in ours or value:
            assert ours[key] == pytest.approx(value, abs=6e-5 if name == "wemath" else 1e-9), (key, ours, theirs)
    assert 0.05 < ours[load_benchmark(name).headline] / (48 if name == "ocrbench" else 1) < 0.95


def test_a_log_for_inspect_is_read_by_inspect(oracle_python, tmp_path):
    data = write_lookalike("vstar", tmp_path / "data")
    items = opened_run(tmp_path / "run", "vstar", data)
    record(tmp_path / "run", items, {item.item_id: item.gold for item in items})
    import asyncio

    asyncio.run(score(tmp_path / "run", load_benchmark("vstar"), Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))
    path = export(tmp_path / "run", "inspect", tmp_path / "out")
    code = (
        "import sys, json; from inspect_ai.log import read_eval_log; log = read_eval_log(sys.argv[1]);"
        "print(json.dumps([log.status, len(log.samples), log.results.scores[0].metrics['Overall'].value,"
        "log.samples[0].scores['acc'].value, log.samples[0].messages[-1].role]))"
    )
    done = subprocess.run([oracle_python, "-c", code, str(path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["success", len(items), 1.0, 1.0, "assistant"]
