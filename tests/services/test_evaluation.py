"""The runner against a real HTTP model server and the real sandbox."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from code_sandbox.command_line import NOT_SCORED
from evaluation.run import main
from evaluation.runs.rows import read_scores
from evaluation.smoke.scripted_model import request_server
from serving.processes import free_port, sandbox_server
from tests.conftest import ROOT
from tests.fake_model_server import model_server
from tests.misbehaving_server import misbehaving_server
from tests.services.test_sandbox_outages import kill

pytestmark = pytest.mark.services
GUESS = "<think>I can answer directly.</think>\n<answer>red</answer>"
LOOK = (
    "<think>Look.</think>\n<code>\n```python\ncolours = sorted(image_1.getcolors(9999), reverse=True)\nprint(len(colours))\n"
    "display(image_1.crop((0, 0, 112, 112)))\n```\n</code>"
)


def arguments(toy, out, url, *more):
    return [
        "--benchmark",
        "tiles",
        "--data",
        str(toy / "data/benchmark.jsonl"),
        "--model",
        "m",
        "--base-url",
        url,
        "--out",
        str(out),
        *more,
    ]


def evaluate(toy, out, url, *more):
    try:
        main(arguments(toy, out, url, *more))
    except SystemExit as ended:
        if ended.code != NOT_SCORED:
            raise
    return json.loads((out / "summary.json").read_text())


def looker(messages):
    return GUESS if any(m["role"] == "assistant" for m in messages) else LOOK


def test_code_runs_in_the_sandbox_and_its_image_reaches_the_model(toy, tmp_path, sandbox_url, monkeypatch):
    monkeypatch.setenv("CODE_SANDBOX_URL", sandbox_url)
    seen = []

    def answer(messages):
        seen.append(messages)
        return looker(messages)

    with model_server(answer) as url:
        summary = evaluate(toy, tmp_path / "run", url, "--limit", "4")
    assert (summary["items"], summary["tool_rate"], summary["tool_errors"], summary["not_evaluated"]) == (4, 1.0, 0, 0)
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("<article>") == 4
    observation = next(messages[-1] for messages in seen if len(messages) == 4)
    assert "Code execution result:" in observation["content"][0]["text"]
    assert observation["content"][1]["image_url"]["url"].startswith("data:image/png")


def test_direct_mode_has_no_tools(toy, tmp_path):
    with model_server(looker) as url:
        summary = evaluate(toy, tmp_path / "run", url, "--mode", "direct", "--limit", "3")
    assert summary["tool_errors"] == 3  # it asked for a tool and was told there is none
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["mode"] == "direct"


def test_an_outage_is_not_evaluated_and_never_wrong(toy, tmp_path):
    with model_server(lambda messages: 404 if "Quickly" in str(messages) else GUESS) as url:
        summary = evaluate(toy, tmp_path / "run", url, "--mode", "think")
    quick = summary["categories"]["quick"]
    assert quick["not_evaluated"] == quick["items"] > 0
    assert quick["accuracy"] is None
    assert summary["evaluated"] == summary["categories"]["look"]["items"]
    # Repeating asks again only what failed.
    asked = []
    with model_server(lambda messages: asked.append(1) or GUESS) as url:
        again = evaluate(toy, tmp_path / "run", url, "--mode", "think")
    assert len(asked) == quick["items"]
    assert again["not_evaluated"] == 0


class SandboxKilledBy:
    """A model whose program for one question is followed by the end of the sandbox, which its supervisor starts again."""

    def __init__(self, directory, redis_url):
        self._directory, self._redis_url, self._port = directory, redis_url, free_port()
        self._stack = contextlib.ExitStack()
        # A server that we start ends with the thread that has started it.
        self._thread = ThreadPoolExecutor(1)
        self.url = self._thread.submit(self._start).result()
        self.marked, self.kills = None, 0

    def _start(self):
        arguments = ("--require-level", "0", "--spare-kernels", "1")
        return self._stack.enter_context(
            sandbox_server(self._directory, self._redis_url, arguments=arguments, port=self._port)
        )

    def _kill(self):
        while not httpx.get(f"{self.url}/health").json()["running_cells"]:
            time.sleep(0.05)
        kill(self.url)
        self._stack.close()
        self._start()

    def answer(self, messages):
        if len(messages) > 2:
            return GUESS
        question = json.dumps(messages[-1])
        self.marked = self.marked or question
        if question != self.marked:
            return "<code>\n```python\nprint(6 * 7)\n```\n</code>"
        self.kills += 1
        self._thread.submit(self._kill)
        return "<code>\n```python\nimport time; time.sleep(20)\n```\n</code>"

    def close(self):
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()


def test_an_item_that_ends_the_sandbox_every_time_is_called_by_name_and_its_neighbours_are_answered(
    toy, tmp_path, redis_url, monkeypatch, capsys
):
    with contextlib.closing(SandboxKilledBy(tmp_path, redis_url)) as sandbox, model_server(sandbox.answer) as url:
        monkeypatch.setenv("CODE_SANDBOX_URL", sandbox.url)
        summary = evaluate(toy, tmp_path / "run", url, "--limit", "6", "--max-episodes", "1", "--outage-attempts", "2")
    ((item, why),) = summary["repeated_outages"].items()
    assert why.startswith("an outage ended it 2 times, the last: SandboxAway: ")
    assert (sandbox.kills, summary["outages"]) == (2, 2)
    assert (summary["evaluated"], summary["not_evaluated"], summary["model_faults"]) == (5, 1, {})
    said = f"item {item}: {why}; other items were answered. By the setting repeated_outage it is not evaluated"
    assert said[:150] in capsys.readouterr().err
    assert f"item {item} is not evaluated: an outage ended it 2 times" in (tmp_path / "run/report.html").read_text()


def test_an_item_that_an_outage_follows_is_scored_as_the_setting_says_and_not_asked_for_ever(toy, tmp_path):
    asked = []

    def answer(messages):
        question = json.dumps(messages[-1])
        asked.append(question)
        return 404 if question == asked[0] else GUESS

    wrong = ("--mode", "think", "--repeated-outage", "wrong", "--outage-attempts", "2")
    with model_server(answer) as url:
        summary = evaluate(toy, tmp_path / "run", url, *wrong, "--max-episodes", "4")
        assert asked.count(asked[0]) == 2
        before = len(asked)
        assert evaluate(toy, tmp_path / "run", url, *wrong) == summary
        assert len(asked) == before
    (row,) = (row for row in read_scores(tmp_path / "run") if row.failure)
    assert (row.correct, row.decided_by, row.item_id) == (False, "rule:repeated_outage", *summary["repeated_outages"])
    assert (summary["evaluated"], summary["not_evaluated"], summary["outages"]) == (16, 0, 2)


def test_a_run_killed_at_random_equals_an_uninterrupted_one(toy, tmp_path):
    def slow(messages):
        time.sleep(0.15)
        return "<answer>red</answer>" if len(str(messages[-1])) % 2 else "<answer>blue</answer>"

    with model_server(slow) as url:
        whole = evaluate(toy, tmp_path / "whole", url, "--mode", "think")
        given = arguments(toy, tmp_path / "killed", url, "--max-episodes", "2", "--mode", "think")
        command = [sys.executable, "-m", "evaluation.run", *given]
        for seconds in (1.0, 1.3, 1.6):
            process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed = evaluate(toy, tmp_path / "killed", url, "--mode", "think")
    assert killed == whole
    lines = (tmp_path / "killed/episodes.jsonl").read_text().splitlines()
    items = [json.loads(line)["facts"]["item_id"] for line in lines if line.endswith("}")]
    assert sorted(items) == sorted(set(items))


def test_another_run_in_the_folder_is_refused(toy, tmp_path):
    with model_server(lambda messages: GUESS) as url:
        options = ("--limit", "2", "--mode", "think")
        evaluate(toy, tmp_path / "run", url, *options)
        with pytest.raises(SystemExit, match="holds another run .*temperature: 0.0 then, 1.0 now"):
            evaluate(toy, tmp_path / "run", url, *options, "--temperature", "1")


@pytest.mark.parametrize("edit", ["lost", "empty", "broken"])
def test_a_bad_benchmark_file_stops_before_a_model_is_started(toy, tmp_path, edit):
    path = tmp_path / "b.jsonl"
    if edit != "lost":
        path.write_text("" if edit == "empty" else "{}\n")
    message = {"lost": "no file", "empty": "holds no items", "broken": "row 1: it has no index, question"}[edit]
    given = ["--benchmark", "tiles", "--data", str(path), "--model", "/none", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=message):
        main([*given, "--mode", "think"])
    assert not (tmp_path / "run").exists()


def searcher(messages):
    question = messages[1]["content"][-1]["text"]
    call = '<think>t</think>\n<tool_call>{"name": "search", "arguments": {"query": "tiles %s"}}</tool_call>'
    return GUESS if any(m["role"] == "assistant" for m in messages) else call % hash(question + str(messages[1]))


def test_a_spent_budget_ends_the_run_and_the_same_command_goes_on_from_there(toy, tmp_path):
    block = {"provider": "searxng", "mode": "record", "recording": str(tmp_path / "r.sqlite"), "max_calls": 5}
    options = (
        "--tools",
        "search",
        "--settings",
        str(tmp_path / "sources.yaml"),
        "--prompt",
        "deepeyesv2",
        "--max-episodes",
        "2",
    )
    episodes = tmp_path / "run/episodes.jsonl"
    with misbehaving_server() as web, model_server(searcher) as url:

        def run(**changes):
            (tmp_path / "sources.yaml").write_text(json.dumps({"search": block | {"base_url": f"{web.url}/good"} | changes}))
            return evaluate(toy, tmp_path / "run", url, *options)

        with pytest.raises(SystemExit, match=r"ended early; .* BudgetExhausted: searxng: 5 calls"):
            run()
        assert web.hits["good"] == 5
        counted = json.loads((tmp_path / "run/search.json").read_text())["search"]
        assert (counted["calls"], counted["counters"]["live"], counted["mode"]) == (5, 5, "record")
        assert episodes.read_text().count('"stop_reason": "answered"') == 5
        with pytest.raises(SystemExit, match=r"another run.*search"):
            run(language="de")
        account = sqlite3.connect(tmp_path / "r.sqlite")
        account.execute("UPDATE spending SET calls = 0")
        account.commit()
        account.close()
        with pytest.raises(SystemExit, match="ended early"):
            run()
    assert episodes.read_text().count('"stop_reason": "answered"') == 10


def test_search_that_is_off_is_neither_offered_nor_promised(toy, tmp_path):
    seen = []

    def answer(messages):
        seen.append(messages)
        return GUESS

    (tmp_path / "off.yaml").write_text("search: {provider: serper, mode: off}\n")
    with model_server(answer) as url:
        options = ("--tools", "search", "--settings", str(tmp_path / "off.yaml"), "--prompt", "deepeyesv2", "--limit", "1")
        evaluate(toy, tmp_path / "run", url, *options)
    assert "search" not in seen[0][0]["content"]


# ---- several samples, modes and servers ----


def test_a_benchmark_asked_without_tools_promises_none(toy, tmp_path):
    seen = []

    def answer(messages):
        seen.append(messages)
        return GUESS

    with model_server(answer) as url:
        evaluate(toy, tmp_path / "think", url, "--mode", "think", "--limit", "1")
        evaluate(toy, tmp_path / "direct", url, "--mode", "direct", "--limit", "1")
    think, direct = (messages[1]["content"][-1]["text"] for messages in seen)
    assert "<answer>" in think
    assert "<answer>" not in direct


def test_samples_are_told_apart_by_their_seed_and_resumed_one_by_one(toy, tmp_path):
    seeds = []

    def respond(body):
        seeds.append(body["seed"])
        return GUESS if body["seed"] == 7 else "<think>t</think>\n<answer>blue</answer>"

    options = ("--samples", "3", "--seed", "7", "--temperature", "1", "--limit", "4", "--mode", "think")
    with request_server(respond) as url:
        summary = evaluate(toy, tmp_path / "run", url, *options)
        assert sorted(seeds) == sorted([7, 8, 9] * 4)
        lines = (tmp_path / "run/episodes.jsonl").read_text().splitlines()
        (tmp_path / "run/episodes.jsonl").write_text("\n".join(lines[:-2]) + "\n")
        seeds.clear()
        again = evaluate(toy, tmp_path / "run", url, *options)
    assert len(seeds) == 2
    assert again == summary
    assert {"mean@3", "pass@1", "pass@2"} <= summary["at_k"].keys()


def test_two_servers_share_the_work_and_one_that_dies_half_way_loses_nothing(toy, tmp_path):
    with contextlib.ExitStack() as stack:
        hits = {"a": 0, "b": 0}
        dying = stack.enter_context(contextlib.ExitStack())

        def server(name):
            def answer(_):
                hits[name] += 1
                if name == "b" and hits["b"] > 4:
                    return 503
                time.sleep(0.02)
                return GUESS

            return answer

        a = stack.enter_context(model_server(server("a")))
        b = dying.enter_context(model_server(server("b")))
        summary = evaluate(toy, tmp_path / "run", f"{a},{b}", "--mode", "think", "--max-episodes", "4")
    assert summary["not_evaluated"] == 0
    assert hits["a"] > 4
    assert hits["b"] >= 4


def test_when_no_server_is_left_the_run_ends_early_and_goes_on_later(toy, tmp_path):
    count = 0

    def answer(_):
        nonlocal count
        count += 1
        return GUESS if count <= 5 else 503

    options = ("--mode", "think", "--max-episodes", "2", "--patience-s", "0.5")
    with model_server(answer) as url, pytest.raises(SystemExit, match=r"ended early; \d+ episodes are recorded and kept"):
        evaluate(toy, tmp_path / "run", url, *options)
    with model_server(lambda messages: GUESS) as url:
        summary = evaluate(toy, tmp_path / "run", url, *options)
    assert (summary["items"], summary["not_evaluated"]) == (16, 0)


@pytest.mark.parametrize("status", [400, 404, 401])
def test_a_model_that_refuses_every_request_stops_the_run_with_what_it_said(toy, tmp_path, status):
    with model_server(lambda messages: status) as url, pytest.raises(SystemExit, match=f"failed in a row, .*HTTP {status}"):
        evaluate(toy, tmp_path / "run", url, "--mode", "think", "--max-episodes", "1")


def test_a_busy_server_is_asked_again_and_an_empty_reply_is_not_evaluated(toy, tmp_path):
    count = 0

    def answer(messages):
        nonlocal count
        count += 1
        return 429 if count % 3 == 0 else GUESS

    with model_server(answer) as url:
        summary = evaluate(toy, tmp_path / "busy", url, "--mode", "think")
    assert summary["not_evaluated"] == 0

    with request_server(lambda body: "", usage={"completion_tokens": 0}) as url:
        summary = evaluate(toy, tmp_path / "empty", url, "--mode", "think", "--limit", "3")
    assert summary["decided_by"] == {"empty_reply": 3}
    assert summary["accuracy"] is None


def test_scoring_and_reporting_again_need_only_the_folder(toy, tmp_path):
    with model_server(lambda messages: GUESS) as url:
        main(arguments(toy, tmp_path / "run", url, "--mode", "think", "--limit", "4", "--stage", "infer"))
    assert not (tmp_path / "run/scores.jsonl").exists()
    main(["--out", str(tmp_path / "run"), "--stage", "score", "--profile", "deepeyesv2-fork"])
    assert json.loads((tmp_path / "run/summary.json").read_text())["profile"] == "deepeyesv2-fork"
    (tmp_path / "run/report.html").unlink()
    main(["--out", str(tmp_path / "run"), "--stage", "report"])
    assert (tmp_path / "run/report.html").exists()
    with pytest.raises(SystemExit, match="--benchmark, --data, --model is missing"):
        main(["--out", str(tmp_path / "other"), "--stage", "infer"])


@pytest.mark.timeout(900)
def test_the_smoke_suite_runs_every_benchmark_with_a_real_sandbox_and_leaves_nothing_running(tmp_path):
    command = ["bash", "evaluation/run_benchmarks.sh", "--suite", "smoke", "--out", str(tmp_path / "smoke")]
    # Twenty seconds on a quiet machine.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "smoke").glob("*/summary.json")]
    assert len(summaries) == 23
    assert all(
        summary["decided_by"].get("failed", 0) == summary["decided_by"].get("not_run", 0) == 0 for summary in summaries
    )
    calls = [
        call for path in (tmp_path / "smoke").glob("*/scores.jsonl") for row in read_scores(path.parent) for call in row.calls
    ]
    kinds = {call.kind for call in calls}
    assert {"crop", "numerical", "search", "other"} <= kinds
    assert any(call.error == "NameError" for call in calls)
    assert (tmp_path / "smoke/leaderboard.html").exists()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0


def test_in_the_blind_mode_tools_run_and_their_results_are_withheld(toy, tmp_path, sandbox_url, monkeypatch):
    monkeypatch.setenv("CODE_SANDBOX_URL", sandbox_url)
    seen = []

    def answer(messages):
        seen.append(messages)
        return looker(messages)

    with model_server(answer) as url:
        summary = evaluate(toy, tmp_path / "run", url, "--mode", "agent-blind", "--limit", "2")
    assert (summary["tool_rate"], summary["tool_errors"]) == (1.0, 0)
    (shown, _) = [messages[-1]["content"] for messages in seen if len(messages) == 4]
    assert shown == "The result is not shown."
