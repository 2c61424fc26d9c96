"""Evaluations that ask a judge of somebody else: its key, its name, and what is said when it cannot be asked."""

import json

import pytest

from evaluation.run import main as evaluate
from evaluation.smoke.lookalikes import write_lookalike
from judge.testing import Misbehaviour, judge_server
from tests.recorded_runs import episode, make_run


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Misbehaviour.WANTS_A_KEY, "wants a key, and JUDGE_API_KEY is not set"),
        (Misbehaviour.PAGE, "is no model server"),
        (None, "no judge at http://127.0.0.1:9/v1"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_named_before_the_model_is_asked_anything(tmp_path, kind, said):
    data = write_lookalike("mathvista", tmp_path)
    with judge_server(kind or Misbehaviour.NONE, lambda prompt: "null") as server:
        judge = server.url if kind else "http://127.0.0.1:9/v1"
        command = ["--benchmark", "mathvista", "--data", str(data), "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]
        with pytest.raises(SystemExit, match=said):
            evaluate([*command, "--out", str(tmp_path / "run"), "--judge-base-url", judge])
    assert not (tmp_path / "run").exists()


def test_a_hosted_judge_is_asked_with_its_key_its_name_and_its_spelling(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "right-key\n")
    make_run(tmp_path / "run", lambda item, _: episode("about one"), benchmark="mathverse")
    with judge_server(Misbehaviour.WANTS_A_KEY, lambda prompt: "null", models=("gpt-4o",)) as server:
        options = ["--judge-base-url", server.url, "--judge-model", "gpt-4o", "--judge-structured-output", "json_schema"]
        with pytest.raises(SystemExit) as ended:  # this judge says nothing that can be read
            evaluate(["--out", str(tmp_path / "run"), "--stage", "score", *options])
        assert ended.value.code == 3
        assert {body["model"] for body in server.bodies} == {"gpt-4o"}
        assert any("response_format" in body for body in server.bodies)
        assert {headers["authorization"] for headers in server.headers} == {"Bearer right-key"}
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"right-key" not in path.read_bytes()


def test_while_the_judge_is_away_what_it_said_before_is_scored_and_the_rest_is_not_evaluated(tmp_path, capsys):
    make_run(tmp_path / "run", lambda item, _: episode("about one"), benchmark="mathverse")
    score = ["--out", str(tmp_path / "run"), "--stage", "score"]
    with judge_server(Misbehaviour.NONE, lambda prompt: "null") as server:
        evaluate([*score, "--judge-base-url", server.url])
        said = json.loads(capsys.readouterr().out)
    assert said["not_evaluated"] == 0
    evaluate([*score, "--judge-base-url", server.url])
    again = capsys.readouterr()
    assert json.loads(again.out) == said
    assert "Only what was judged before is scored" in again.err
    with pytest.raises(SystemExit) as ended:
        evaluate([*score, "--judge-base-url", server.url, "--judge-model", "another"])
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().out)["not_evaluated"] == said["items"]
