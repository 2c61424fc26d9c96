import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.agreement import by_category, compare, main
from judge.doctor import QUESTIONS
from judge.doctor import main as doctor
from judge.rules import Rules
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
    with pytest.raises(ValueError, match=r"pairs\.jsonl:1 lacks gold, answer, right"):
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
