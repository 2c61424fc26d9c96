"""Curation with a real sandbox, and processes that are killed or that share a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from agent.trajectory import read_rollouts
from code_sandbox.command_line import OUTAGE
from curation.journal import entries
from curation.settings import read_curation
from curation.spending import spent_by_model
from evaluation.smoke.scripted_model import request_server
from tests.conftest import ROOT
from tests.unit.curation.conftest import Bench, row
from tests.unit.curation.test_models import THINK, models, said, text_of
from tests.unit.curation.test_spending import EACH, PRICES
from tests.unit.curation.test_spending import STEPS as CAPPED

pytestmark = pytest.mark.services


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def cell(code):
    return f"<think>I look.</think>\n<code>\n```python\n{code}\n```\n</code>"


FIRST = {
    "0": cell("display(image_1.crop((0, 0, 48, 48)))"),
    "1": cell("print(undefined_name)"),
    "2": cell("# I look at the image\npass"),
    "3": said("red"),
}


def question_number(body):
    texts = [
        part.get("text", "")
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    ]
    return "".join(texts).split("numbered ")[1].split()[0]


def test_every_call_of_a_trajectory_is_really_run_and_errors_and_pretence_are_not_kept(bench, sandbox_url):
    steps = [
        {"synthesise": {"on": "rl", "with": ["teacher"], "k": 1, "keep": {"min_calls": 1}}},
        {"export": {"rl": None, "sft": "llamafactory"}},
    ]

    def answer(body):
        assistants = sum(message["role"] == "assistant" for message in body["messages"])
        return said("red") if assistants else FIRST[question_number(body)]

    agent = {"sandbox_urls": [sandbox_url], "tools": ["python"], "prompt": "deepeyesv2_code", "primer": ""}
    with request_server(answer) as url:
        bench.run([bench.source("mine", [row(n) for n in range(4)])], steps, models=models(url, "teacher"), agent=agent)
    assert bench.kept("01_synthesise") == ["i0"]
    assert bench.reasons("01_synthesise") == {
        "i1": "no trajectory: 1 tool errors",
        "i2": "no trajectory: 1 placeholder code",
        "i3": "no trajectory: 1 too few calls",
    }
    (talk,) = json.loads((bench.directory / "store/sets/toy/sft.json").read_text())
    assert [message["role"] for message in talk["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    folder = bench.directory / "store/sets/toy"
    crop = folder / talk["images"][1]
    assert len(talk["images"]) == 2
    assert crop.resolve().parent.parent == (bench.directory / "store/images").resolve()
    recorded = list(read_rollouts(bench.directory / "run/01_synthesise/episodes"))
    assert len(recorded) == 4
    assert {rollout.facts.item_id for rollout in recorded} == {f"mine:mine:{n}" for n in range(4)}


def test_a_sandbox_that_is_away_is_an_outage_and_its_rows_are_open(bench):
    steps = [{"sample": {"as": "tools", "with": "base", "mode": "agent", "k": 1}}, {"keep": {"tools.right": {"min": 1}}}]
    agent = {
        "sandbox_urls": ["http://127.0.0.1:9"],
        "sandbox_wait_s": 0.1,
        "tools": ["python"],
        "prompt": "deepeyesv2_code",
        "primer": "",
    }

    def answer(body):
        return said("red") if question_number(body) == "1" else FIRST["0"]

    with request_server(answer) as url:
        bench.run([bench.source("mine", [row(0), row(1)])], steps, models=models(url), agent=agent)
    assert bench.kept("02_keep") == ["i1"]
    assert bench.reasons("02_keep") == {"i0": "open: tools.right is between 0 and 1"}
    assert bench.step("01_tools").summary()["waiting"] == 1


def start(path):
    return subprocess.Popen(
        [sys.executable, "-m", "curation.run", "run", str(path), "--workers", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Slow:
    """A model that takes its time and counts what it was asked."""

    def __init__(self, latency_s):
        self.asked = Counter()
        self._latency_s, self._lock = latency_s, threading.Lock()

    def __call__(self, body):
        with self._lock:
            self.asked[text_of(body), body["seed"]] += 1
        time.sleep(self._latency_s)
        return said("red")


def test_a_run_that_is_killed_three_times_loses_nothing_and_repeats_only_what_was_under_way(bench):
    model = Slow(0.05)
    with request_server(model) as url:
        path = bench.write([bench.source("mine", [row(n) for n in range(30)])], THINK, models=models(url))
        for share in (10, 40, 80):
            process = start(path)
            while sum(model.asked.values()) < share:
                time.sleep(0.01)
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        process = start(path)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out.decode()
    done = [entry["id"] for entry in entries(bench.directory / "run/01_plain/journal") if entry["done"]]
    assert len(done) == len(set(done)) == len(model.asked) == 120
    assert sum(model.asked.values()) - 120 <= 3 * 4


CAPS = [
    {"max_calls": 37},
    {"max_cost_usd": 37.5 * EACH, "context_tokens": 55, **PRICES},
]


@pytest.mark.parametrize("cap", CAPS, ids=["calls", "money"])
def test_processes_that_share_a_run_pass_no_cap_together_and_use_it_up(bench, cap):
    model = Slow(0.05)
    with request_server(model) as url:
        path = bench.write([bench.source("mine", [row(n) for n in range(50)])], CAPPED, models=models(url, **cap))
        processes = [start(path) for _ in range(3)]
        outs = [process.communicate(timeout=60)[0].decode() for process in processes]
    assert sum(model.asked.values()) == 37
    assert [process.returncode for process in processes] == [OUTAGE] * 3, "as with a server that is away: the same command goes on"
    assert all("raise it. What was done is kept; the same command goes on" in out for out in outs), outs
    assert len(list((bench.directory / "run/01_plain/journal").glob("*.jsonl"))) >= 2


def test_what_a_killed_process_had_under_way_counts_for_the_cap_of_those_that_are_left(bench):
    model = Slow(0.3)
    with request_server(model) as url:
        sources = [bench.source("mine", [row(n) for n in range(50)])]
        path = bench.write(sources, CAPPED, models=models(url, max_calls=40))
        first, second = start(path), start(path)
        while sum(model.asked.values()) < 12:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        out = second.communicate(timeout=60)[0].decode()
    spent = spent_by_model(read_curation(path))["base"]
    assert 0 < spent["unanswered"] <= 4
    assert sum(model.asked.values()) == spent["calls"] + spent["unanswered"] == 40
    assert f"({spent['unanswered']} more were never answered, and count as if they had been)" in out


def test_processes_that_share_a_run_ask_for_each_answer_once_and_agree(bench):
    model = Slow(0.05)
    with request_server(model) as url:
        path = bench.write([bench.source("mine", [row(n) for n in range(20)])], THINK, models=models(url))
        processes = [start(path) for _ in range(2)]
        outs = [process.communicate(timeout=60)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert set(model.asked.values()) == {1}
    assert len(model.asked) == 80
    journals = list((bench.directory / "run/01_plain/journal").glob("*.jsonl"))
    assert len(journals) == 2
    assert all("1 plain: 20 in, 20 kept" in out for out in outs)
