import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.__main__ import main as cli_main
from judge.agreement import LABELLED, by_category, compare, main, read_pairs
from judge.doctor import QUESTIONS
from judge.doctor import main as doctor
from judge.quoting import quoted
from judge.rules import Rules
from judge.testing import Misbehaviour, judge_server
from tests.fake_model_server import model_server

VERDICTS = st.lists(st.sampled_from([True, False, None]), max_size=30)


@given(VERDICTS)
def test_a_judge_agrees_with_itself(verdicts):
    found = compare(verdicts, verdicts)
    assert found.agreement in (None, 1.0)
    assert found.kappa is None or found.kappa == pytest.approx(1.0)
    assert found.compared + found.undecided == len(verdicts)
    assert not found.flips


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_kappa_is_that_of_the_confusion_matrix(pairs):
    both, first, second, neither = (
        pairs.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False))
    )
    below = (both + first) * (first + neither) + (both + second) * (second + neither)
    kappa = compare([a for a, _ in pairs], [b for _, b in pairs]).kappa
    assert kappa == (None if below == 0 else pytest.approx(2 * (both * neither - first * second) / below))


def test_known_agreement_and_flips():
    found = compare([True] * 25 + [False] * 25, [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert (found.agreement, found.kappa) == (0.7, pytest.approx(0.4))
    assert found.flips == {"correct -> incorrect": 5, "incorrect -> correct": 10}
    assert by_category(["a", "b"], [True, None], [True, True])["b"].undecided == 1
    with pytest.raises(ValueError, match="shorter|longer"):
        compare([True], [])


def test_rules_are_compared_with_labels_by_the_command_line(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    pairs = [{"question": "q", "gold": "B", "answer": "B", "right": True, "kind": "choice"}] * 3
    pairs += [{"question": "q", "gold": "B", "answer": "B", "right": False, "kind": "wrong label"}]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    main([str(path), "--labels"])
    out = capsys.readouterr().out
    assert "| choice | 3 | 0 | 1.000 | - | none |" in out
    assert "| wrong label | 1 | 0 | 0.000 | 0.000 | correct -> incorrect: 1 |" in out
    assert "decided by rules 4, by the judge 0" in out
    path.write_text('{"question": "q"}')
    with pytest.raises(SystemExit, match=r"pairs\.jsonl:1 lacks gold, answer, right"):
        main([str(path), "--labels"])


def test_no_rule_decides_a_question_of_the_doctor():
    assert len(QUESTIONS) == 10
    for question, gold, answer, _ in QUESTIONS:
        assert Rules().judge(answer, gold, question=question).correct is None, answer


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [("CORRECT", 1, "right 5 of 10, read 10 of 10"), ("hm", 1, "read 0 of 10"), (404, None, "check judge.model")],
)
def test_the_doctor_says_how_fit_a_judge_is(capsys, reply, code, said):
    with model_server(lambda messages: reply) as url, pytest.raises(SystemExit) as ended:
        doctor(["--base-url", url])
    assert said in (capsys.readouterr().out if code is not None else str(ended.value))


def test_the_doctor_of_a_judge_that_is_not_there_says_how_to_start_one():
    with pytest.raises(SystemExit, match=r"judge/serve\.sh"):
        doctor(["--base-url", "http://127.0.0.1:9/v1"])


# ---- what the doctor finds ----

RIGHT = {(gold, answer): "CORRECT" if wanted else "INCORRECT" for _, gold, answer, wanted in QUESTIONS}


def good_judge(prompt):
    if "KIWI" in prompt or "sugar" in prompt:
        return "Plants make it from light. It is called photosynthesis."
    return next(word for (gold, answer), word in RIGHT.items() if f'"{gold}"' in prompt and f'"{answer}"' in prompt)


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        (Misbehaviour.NONE, 0, "right 10 of 10, read 10 of 10"),
        (Misbehaviour.IGNORES_STRUCTURE, 0, "does not keep to structured_outputs, and is asked with room instead"),
        (Misbehaviour.REFUSES_STRUCTURE, 0, "nothing else holds it either"),
        (Misbehaviour.ONLY_JSON_SCHEMA, 0, "`--judge-structured-output json_schema` holds it"),
        (Misbehaviour.THINKS_LONG, 0, "replies were cut at 2048 tokens: set judge.max_reply_tokens"),
        (Misbehaviour.THINKS_IN_TAGS, 0, "thinks before it writes"),
        (Misbehaviour.ONLY_THINKS, 1, "content is empty and all words are thoughts"),
        (Misbehaviour.OTHER_LANGUAGE, 1, "expected CORRECT or INCORRECT"),
        (Misbehaviour.REFUSES_SAMPLING, 0, "asked in its own way: max_completion_tokens, seed, temperature"),
        (Misbehaviour.PAGE, None, "no model server: it answered HTTP 200 with a web page"),
        (Misbehaviour.WANTS_A_KEY, None, "wants a key, and JUDGE_API_KEY is not set"),
        (Misbehaviour.REDIRECTS, None, "name that address instead"),
        (Misbehaviour.ABORTED, 1, "read 0 of 10"),
    ],
)
def test_the_doctor_names_the_cause_and_what_was_expected(capsys, monkeypatch, kind, code, said):
    monkeypatch.setattr("judge.llm.pause_before_s", lambda attempt: 0.0)
    with judge_server(kind, good_judge) as server, pytest.raises(SystemExit) as ended:
        doctor(["--base-url", server.url])
    out = capsys.readouterr().out
    if code is None:
        assert said in str(ended.value)
        return
    assert ended.value.code == code
    assert said in out
    if code:
        assert "FAIL  undecided" in out
        assert "expected correct" in out


def test_the_doctor_lists_the_models_there_are(capsys):
    with judge_server(Misbehaviour.NONE, good_judge, models=("a", "b")) as server:
        with pytest.raises(SystemExit, match="serves a, b, not 'judge'; name one of these"):
            doctor(["--base-url", server.url])
        with pytest.raises(SystemExit) as ended:
            doctor(["--base-url", server.url, "--model", "b"])
    assert ended.value.code == 0


def test_the_address_without_v1_is_found_out():
    with judge_server(Misbehaviour.NONE, good_judge) as server:
        url = server.url.removesuffix("/v1")
        with pytest.raises(SystemExit, match=rf"there is one at {url}/v1: use that address"):
            doctor(["--base-url", url])


# ---- the labelled answers in one command ----


def test_the_labelled_answers_are_judged_in_one_command(capsys, monkeypatch):
    assert len(LABELLED) == 3
    monkeypatch.setattr("judge.agreement.LABELLED", LABELLED[:1])  # all of them take half a minute
    pairs = read_pairs(LABELLED[0], labels=True)
    right = {
        (quoted(pair["gold"]), quoted(pair["answer"])) for pair in pairs if pair["right"] and isinstance(pair["gold"], str)
    }

    def decide(prompt):
        gold, answer = re.findall(r"^(?:Reference|Model's|Student's) answer: (.*)$", prompt, re.MULTILINE)
        return "CORRECT" if (gold, answer) in right else "INCORRECT"

    with judge_server(Misbehaviour.NONE, decide) as server:
        monkeypatch.setenv("LLM_AS_A_JUDGE_BASE", server.url)
        cli_main(["agreement"])
    out = capsys.readouterr().out
    first, second = out.split("the judge alone")
    assert "rules, then the judge" in first
    for table in (first, second):
        (row,) = re.findall(r"^\| all \|.*$", table, re.MULTILINE)
        _, _, compared, undecided, agreement, *_ = [cell.strip() for cell in row.split("|")]
        assert (int(compared) > 500, int(undecided) < 20, float(agreement) > 0.98) == (True, True, True), row


def test_another_judge_gets_its_own_key_and_never_the_first_ones(capsys, monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"question": "q", "gold": "dark red", "answer": "crimson"}) + "\n")
    monkeypatch.setenv("JUDGE_API_KEY", "key-one")
    monkeypatch.setenv("OTHER_JUDGE_API_KEY", "key-two\n")
    with (
        judge_server(Misbehaviour.NONE, lambda _: "CORRECT") as one,
        judge_server(Misbehaviour.NONE, lambda _: "INCORRECT") as two,
    ):
        main([str(path), "--base-url", one.url, "--other", two.url])
    assert {headers["authorization"] for headers in one.headers} == {"Bearer key-one"}
    assert {headers["authorization"] for headers in two.headers} == {"Bearer key-two"}
    assert "| all answers | 1 | 0 | 0.000 | 0.000 | correct -> incorrect: 1 |" in capsys.readouterr().out


def test_a_judge_that_is_not_there_is_no_disagreement():
    with pytest.raises(SystemExit, match=r"judge.agreement: no judge at http://127\.0\.0\.1:9/v1"):
        main(["--base-url", "http://127.0.0.1:9/v1"])
