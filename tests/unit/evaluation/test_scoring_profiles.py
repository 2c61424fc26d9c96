"""ChartQA and MATH-Vision, where the profiles differ most, and what is written of all their differences."""

import contextlib
import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.benchmarks import Item, load_benchmark
from evaluation.benchmarks.chartqa import relaxed_equal
from evaluation.scoring.arithmetic import NoArithmetic, evaluate, is_equal, unboxed, without_parentheses
from evaluation.scoring.grader import Prediction
from evaluation.scoring.profiles import PROFILES
from tests.conftest import ROOT
from tests.unit.evaluation.scoring import FORK, HEAD, PACKAGE, correct, grader, item

# ---- ChartQA ----


@pytest.mark.parametrize(
    ("target", "answer", "right"),
    [
        ("10", "10%", False), ("0.1", "10%", True), ("0", "0.0", False), ("0", "0", True), ("1000", "1,000", False),
        ("2018", "2019", True), ("yes", "yes.", False), ("Yes", "yes", True), ("100", "105", True), ("100", "106", False),
        ("nan", "nan", False), ("inf", "inf", False), ("-5", "-5.2", True),
    ],
)  # fmt: skip
def test_relaxed_accuracy_surprises_as_the_reference_does(target, answer, right):
    assert relaxed_equal(target, answer) is right


async def test_the_fork_takes_the_tolerance_of_the_prediction_and_asks_its_judge_last():
    one = Item(item_id="1", question="q", gold="100", category="h", fields={"question": "q"})
    assert await correct("chartqa", one, "105.2") is False
    assert await correct("chartqa", one, "105.2", grader(profile=FORK)) is True
    words = Item(item_id="1", question="q", gold="navy", category="h", fields={"question": "q"})
    assert await correct("chartqa", words, "dark blue", grader("CORRECT", profile=FORK)) is True


@pytest.mark.parametrize(
    ("gold", "answer", "asked"),
    [
        ("100", "106", False), ("100", "nan", False), ("100", "0", True), ("100", "a hundred", True), ("navy", "7", True),
        ("['100', 'navy']", "106", True), ("navy", "NAVY", False), ("25%", "0.3", False),
    ],
)  # fmt: skip
async def test_the_forks_judge_is_asked_about_texts_and_zero_and_never_about_two_numbers(gold, answer, asked):
    one = Item(item_id="1", question="q", gold=gold, fields={"question": "q"})
    made = grader("CORRECT", profile=FORK, parity=True)
    found = await load_benchmark("chartqa").grade(one, Prediction(answer), made)
    assert found.decided_by == ("judge:judge" if asked else "rule:relaxed")
    assert found.correct is (asked or answer == "NAVY")


async def test_in_parity_the_forks_judge_alone_decides_what_our_rules_would_know():
    one = Item(item_id="1", question="q", gold="navy", fields={"question": "q"})
    for parity, decided_by in ((False, "rule:exact"), (True, "judge:judge")):
        made = grader("INCORRECT", profile=FORK, parity=parity)
        found = await load_benchmark("chartqa").grade(one, Prediction("Navy."), made)
        assert (found.decided_by, found.correct) == (decided_by, not parity)


async def test_the_best_of_several_gold_answers_counts():
    one = Item(item_id="1", question="q", gold="['2018', 'blue']", fields={"question": "q"})
    assert await correct("chartqa", one, " Blue ") is True


# ---- MATH-Vision ----


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        (r"\sqrt{2}", "1.41421356", False), ("x=3", "3", False), ("50%", "0.5", True), ("A", "a", True), (r"\frac{1}{2}", "0.5", True),
        ("2^3", "1", True), ("6/2", "3", True), ("9**9**9", "1", False), ("__import__('os')", "1", False), ("", "0", False),
        ("(1, 2)", "(1, 2)", True), ("1e400", "1e401", False),
    ],
)  # fmt: skip
def test_values_are_equal_as_in_the_reference(answer, gold, same):
    assert is_equal(answer, gold) is same


@given(st.text(max_size=60))
def test_no_answer_is_run_and_none_raises(text):
    with contextlib.suppress(NoArithmetic):
        assert isinstance(evaluate(text), int | float | complex)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**4))
def test_arithmetic_is_pythons(a, b):
    assert evaluate(f"{a}/{b} + 2*({a} - {b})") == a / b + 2 * (a - b)


def test_a_golds_first_box_ends_at_the_first_brace_and_parentheses_go_in_pairs_only():
    assert unboxed(r"so \boxed{12} or \boxed{13}") == "12"
    assert unboxed(r"\boxed{\frac{1}{2}}") == r"\frac{1"
    assert unboxed("12") == "12"
    assert without_parentheses(r"so \(x\) = \(2\)") == "so x = 2"
    assert without_parentheses(r"so \(x") == r"so \(x"


@pytest.mark.parametrize("profile", [HEAD, PACKAGE, FORK])
async def test_a_box_comes_off_the_gold_answer_under_the_fork_and_never_off_what_the_model_said(profile):
    found = await correct("mathvision", item(r"\boxed{north west}"), "north west", grader(profile=profile))
    assert found is (True if profile is FORK else None)
    assert await correct("mathvision", item("north west"), r"\boxed{north west}", grader(profile=profile)) is None
    options = item(r"\boxed{B}", choices={"A": "3", "B": "5"})
    assert await correct("mathvision", options, "B", grader(profile=profile)) is False


@pytest.mark.parametrize(("gold", "choices"), [("B", {"A": "3", "B": "5"}), ("north west", {})])
@pytest.mark.parametrize("profile", [HEAD, PACKAGE, FORK])
async def test_latex_parentheses_come_off_the_judges_extraction_under_the_fork(profile, gold, choices):
    one, reply = item(gold, choices=choices), f"\\({gold}\\)"
    found = await correct("mathvision", one, "so it is", grader(reply, profile=profile, parity=True))
    assert found is (profile is FORK)


async def test_an_option_that_the_judge_cannot_name_is_wrong():
    one = item("B", choices={"A": "3", "B": "5"})
    assert await correct("mathvision", one, "one of them", grader("neither")) is False


# ---- what differs ----


def test_the_docs_list_all_data_by_which_the_profiles_differ():
    docs = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    written = {True: "yes", False: "no"}
    for field in fields(PROFILES["vlmevalkit"]):
        if field.name != "name":
            values = [getattr(profile, field.name) for profile in PROFILES.values()]
            cells = " | ".join(written[value] if isinstance(value, bool) else f"`{value}`" for value in values)
            assert re.search(rf"^\| `{field.name}` \| .* \| {re.escape(cells)} \|$", docs, re.MULTILINE), field.name


def test_no_rule_asks_for_a_profile_by_its_name():
    files = [path for room in ("scoring", "benchmarks") for path in (ROOT / "evaluation" / room).glob("*.py")]
    asked = {
        path.name
        for path in files
        if re.search(r"profile\.name\s*(==|!=|in\b)|profile\s+is\s+(?!not None)", path.read_text(encoding="utf-8"))
    }
    assert asked == set()
