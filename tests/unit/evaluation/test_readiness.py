"""A run that lacks a server says so before anything is asked, and one of which too little was evaluated does not end well."""

import json
import socket
import threading

import pytest

from code_sandbox.command_line import MISTAKE, OUTAGE
from evaluation import suite
from evaluation.run import main as run_main
from evaluation.runs import ask, readiness
from evaluation.runs.summary import read_summary
from evaluation.smoke.lookalikes import write_lookalike
from judge.testing import Misbehaviour, judge_server
from tests.fake_model_server import model_server
from tests.recorded_runs import episode, make_run

AWAY = "http://127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture(autouse=True)
def no_servers(monkeypatch):
    for name in ("LLM_AS_A_JUDGE_BASE", "JUDGE_API_KEY", "MODEL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODE_SANDBOX_URL", AWAY)


@pytest.fixture
def silent_url():
    """Takes a connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(tmp_path, *more, benchmark="vstar", model="m"):
    """What a run says that ends before it began; nothing of it is there then."""
    data = write_lookalike(benchmark, tmp_path / "data")
    given = ["--benchmark", benchmark, "--data", str(data), "--model", model, "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        run_main([*given, *more])
    assert ended.value.code in (MISTAKE, OUTAGE)
    assert not (tmp_path / "run").exists()
    return str(ended.value)


def asked_for(asked):
    return [body for body in asked if "OK" not in str(body)]


def test_a_dead_sandbox_is_said_before_the_model_is_asked(tmp_path, capsys):
    asked = []
    with model_server(lambda messages: asked.append(messages) or "red") as url:
        said = refused(tmp_path, "--base-url", url)
    assert "nothing was asked and nothing is scored" in said
    assert f"no sandbox at {AWAY}" in said
    assert "--mode think" in said
    assert not asked
    assert f"asking whether the sandbox at {AWAY}, the model at {url} are there" in capsys.readouterr().err


def test_a_wrong_address_of_the_model_is_said(tmp_path):
    assert f"the model server at {AWAY}/v1 does not answer" in refused(
        tmp_path, "--base-url", f"{AWAY}/v1", "--mode", "think"
    )
    assert "does not answer" in refused(tmp_path, "--base-url", "localhost:8000/v1", "--mode", "think")
    with judge_server(Misbehaviour.PAGE, str) as server:
        said = refused(tmp_path, "--base-url", server.url, "--mode", "think")
        assert "is no OpenAI-compatible API (HTTP 200" in said
    with judge_server(Misbehaviour.NONE, str) as server:
        said = refused(tmp_path, "--base-url", server.url.removesuffix("/v1"), "--mode", "think")
        assert "is no OpenAI-compatible API (HTTP 404" in said
        assert "usually ends in /v1" in said


def test_a_server_that_takes_a_request_and_never_answers_is_said(tmp_path, monkeypatch, silent_url):
    monkeypatch.setattr(readiness, "_WAIT_S", 0.3)
    said = refused(tmp_path, "--base-url", f"{silent_url}/v1", "--mode", "think")
    assert f"the model server at {silent_url}/v1 took the request and did not answer" in said


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "wants a key (HTTP 401"),
        ("wrong-key", "does not take the key (HTTP 401"),
        ("wrong\nkey", "number 6 is a blank, a line break or no ASCII"),
    ],
)
def test_a_wrong_key_of_the_model_is_said_and_not_shown(tmp_path, monkeypatch, key, said):
    monkeypatch.setenv("MODEL_API_KEY", key)
    with judge_server(Misbehaviour.WANTS_A_KEY, str, models=("m",)) as server:
        found = refused(tmp_path, "--base-url", server.url, "--mode", "think")
    assert said in found
    assert "MODEL_API_KEY" in found
    assert not key or key not in found


def test_a_model_that_is_not_served_is_said_with_those_that_are(tmp_path):
    with judge_server(Misbehaviour.NONE, str, models=("this", "that")) as server:
        said = refused(tmp_path, "--base-url", server.url, "--mode", "think", model="other")
    assert "serves this, that, not 'other'" in said
    assert "--model" in said


def test_a_model_that_answers_is_asked_whatever_names_its_server_lists(tmp_path):
    data = write_lookalike("vstar", tmp_path / "data")
    given = ["--benchmark", "vstar", "--data", str(data), "--model", "an-alias", "--out", str(tmp_path / "run")]
    with model_server(lambda messages: "<answer>A</answer>") as url:
        run_main([*given, "--base-url", f"{url},{AWAY}/v1", "--mode", "think"])  # and one of several servers is enough
    assert read_summary(tmp_path / "run").not_evaluated == 0


def test_a_source_of_search_that_is_not_there_is_said(tmp_path):
    (tmp_path / "sources.yaml").write_text(f"search: {{provider: local, path: {tmp_path}/none.jsonl}}\n")
    options = ("--tools", "search", "--prompt", "deepeyesv2", "--settings", str(tmp_path / "sources.yaml"))
    with model_server(lambda messages: "red") as url:
        said = refused(tmp_path, "--base-url", url, *options)
    assert "the source of search: " in said
    assert "none.jsonl" in said


@pytest.mark.parametrize("imported", [False, True])
def test_a_benchmark_that_only_a_judge_can_score_is_not_asked_without_one(tmp_path, imported):
    more = ("--base-url", f"{AWAY}/v1", "--mode", "think")
    if imported:
        (tmp_path / "p.jsonl").write_text('{"doc_id": 0, "resps": [["A"]]}\n')
        more = ("--predictions", str(tmp_path / "p.jsonl"))
    said = refused(tmp_path, *more, benchmark="mathvista")
    assert "mathvista needs a judge, and none was named" in said
    assert "--judge-base-url" in said


def test_a_judge_that_takes_its_key_for_its_list_alone_is_found_out(tmp_path):
    with judge_server(Misbehaviour.WRONG_MODEL, str) as server, model_server(lambda messages: "red") as url:
        options = ("--base-url", url, "--mode", "think", "--judge-base-url", server.url)
        assert "The model `judge` does not exist" in refused(tmp_path, *options)


def test_all_that_is_missing_is_said_at_once(tmp_path):
    said = refused(tmp_path, "--base-url", f"{AWAY}/v1", "--judge-base-url", f"{AWAY}/v1")
    assert [line.strip()[:12] for line in said.splitlines()[1:]] == ["no sandbox a", "the model se", "no judge at "]


def test_a_run_that_is_finished_needs_no_server(tmp_path):
    data = write_lookalike("vstar", tmp_path / "data")
    given = ["--benchmark", "vstar", "--data", str(data), "--model", "m", "--out", str(tmp_path / "run"), "--mode", "think"]
    with model_server(lambda messages: "<answer>A</answer>") as url:
        run_main([*given, "--base-url", url])
    run_main([*given, "--base-url", f"{AWAY}/v1"])


def test_a_suite_ends_at_the_first_server_that_is_missing(tmp_path, capsys):
    for name in ("vstar", "chartqa", "mathvista"):
        write_lookalike(name, tmp_path / "data")
    given = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--model", "m", "--base-url", f"{AWAY}/v1"]
    code = suite.run_suite(suite.parse([*given, "--benchmarks", "mathvista,vstar,chartqa", "--mode", "think"]))
    said = capsys.readouterr()
    assert code == 1
    assert "mathvista: not done: mathvista needs a judge" in said.out
    assert "chartqa: not done: the suite ended before it" in said.out
    assert said.err.count("does not answer") == 1


# ---- too little was evaluated ----


def scored(tmp_path, failing, count=20):
    """A run of which some episodes failed is scored again; its exit code."""
    made = iter(range(count))
    reason = "PolicyUnavailable: http://h/v1 gave no answer"
    make = lambda item, _: episode(item.gold, failure=reason if next(made) < failing else "")  # noqa: E731
    make_run(tmp_path / "run", make, count=count)
    try:
        run_main(["--out", str(tmp_path / "run"), "--stage", "score"])
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.parametrize(("failing", "code"), [(0, 0), (1, 0), (2, 3), (20, 3)])
def test_a_run_ends_with_3_if_less_than_95_percent_was_evaluated(tmp_path, capsys, failing, code):
    assert scored(tmp_path, failing) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["not_evaluated"] == failing
    pages = [told.err, *((tmp_path / f"run/report.{kind}").read_text() for kind in ("html", "md"))]
    for page in pages:
        assert ("a score wants 95%" in page) == (code == 3)
        if code:
            assert f"({failing} x): PolicyUnavailable: http://h/v1 gave no answer" in page


def test_a_run_of_which_nothing_was_evaluated_for_want_of_a_judge_says_how_to_score_it(tmp_path, capsys):
    make_run(tmp_path / "run", lambda item, _: episode("about one"), benchmark="mathverse")
    with pytest.raises(SystemExit) as ended:
        run_main(["--out", str(tmp_path / "run"), "--stage", "score"])
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert "nothing was evaluated" in said
    assert "--stage score --judge-base-url URL" in said


def test_a_suite_ends_with_3_if_too_little_of_a_benchmark_was_evaluated(tmp_path, capsys):
    write_lookalike("vstar", tmp_path / "data")
    given = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--model", "m", "--benchmarks", "vstar"]
    with model_server(lambda messages: 404) as url:
        assert suite.run_suite(suite.parse([*given, "--base-url", url, "--mode", "think"])) == 3
    assert "vstar: nothing was evaluated" in capsys.readouterr().out


# ---- waiting ----


def test_a_run_that_waits_for_its_model_says_so_and_says_when_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ask, "_LOOK_S", 0.01)
    monkeypatch.setattr(ask, "_SAID_AFTER_S", 0.02)
    said = threading.Event()
    say = ask._say_waits

    def hearing(asker, on_wait):
        return say(asker, lambda line: (on_wait(line), said.set()))

    monkeypatch.setattr(ask, "_say_waits", hearing)
    data = write_lookalike("vstar", tmp_path / "data")
    given = ["--benchmark", "vstar", "--data", str(data), "--model", "m", "--out", str(tmp_path / "run"), "--mode", "think"]
    with model_server(lambda messages: "<answer>A</answer>" if said.is_set() else 503) as url:
        run_main([*given, "--base-url", url])
    told = capsys.readouterr().err
    assert f"waiting for the model at {url}, which is away or full" in told
    assert f"the model at {url} is back" in told
    assert read_summary(tmp_path / "run").not_evaluated == 0
