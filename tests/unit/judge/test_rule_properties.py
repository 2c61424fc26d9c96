"""What holds for all answers: rules never raise, say the same of both orders, and an adversary finds nothing."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.rules import Rules, lists_candidates
from judge.rules.layout import peel
from tests.adversary.run import MARKS, attack

_PARTS = r"""
1 2 0 5 10 3.5 1,234 1e5 1e999 ² ³ ½ ① ٣ x y e i AB m kg km/h MW % $ € \frac { } ( ) [ ] ^ _ ! \sqrt \pi \text{ \boxed{ \times
10^ - – − + * / : ; , . = < > or and not A B the a yes no red blue May 2024 pm ' " ** ``` 答案 是 half two hundred million third 3rd
°C ^\circ \log_ \sin \binom | ~ & nan inf E5 İ ß
"""
PARTS = [*_PARTS.split(), " ", "\n", "\t", "\0", "\ud800", "\u202e"]
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
    st.lists(st.sampled_from(PARTS), max_size=10).map(" ".join),
)
PAIRS = [json.loads(line) for line in (Path(__file__).parent / "rule_cases.jsonl").read_text(encoding="utf-8").splitlines()]
ORDERED = ("choice", "candidates", "hedged", "list_set", "yes_no")
"""Kinds in which the gold says what is asked for: a letter, a set."""


@given(texts, texts.filter(str.strip), texts)
def test_no_text_raises_and_no_text_is_wrong_for_itself(answer, gold, question):
    Rules().judge(answer, gold, question=question)
    lists_candidates(answer, gold)
    assert Rules().judge(gold, gold, question=question).correct is not False


@given(texts)
def test_peeling_ends(text):
    assert peel(peel(text)) == peel(peel(peel(text)))


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS} - set(ORDERED)))
def test_numbers_dates_words_and_formulas_are_equal_both_ways(kind):
    """A gold that is a letter, or an answer that lists candidates, has a side of its own."""
    for pair in PAIRS:
        if pair["kind"] == kind and pair["answer"].strip():
            there = Rules().judge(pair["answer"], pair["gold"], question=pair["question"])
            back = Rules().judge(pair["gold"], pair["answer"], question=pair["question"])
            if not {there.decided_by, back.decided_by} & {"rule:choice", "rule:candidates", "rule:list"}:
                assert there.correct is back.correct, pair


@given(st.sampled_from([pair for pair in PAIRS if pair["right"]]), st.sampled_from(MARKS))
def test_layout_never_turns_a_right_answer_into_a_wrong_one(pair, layout):
    assert Rules().judge(layout.replace("{}", pair["answer"]), pair["gold"], question=pair["question"]).correct is not False


@given(st.sampled_from([pair for pair in PAIRS if pair["right"] is False]), st.sampled_from(MARKS))
def test_layout_never_turns_a_wrong_answer_into_a_right_one(pair, layout):
    assert Rules().judge(layout.replace("{}", pair["answer"]), pair["gold"], question=pair["question"]).correct is not True


@given(st.integers(-(10**30), 10**30))
def test_an_integer_equals_itself_and_no_other(number):
    assert Rules().judge(f"{number:,}", str(number)).correct is True
    assert Rules().judge(f"{number}.0", str(number)).correct is True
    assert Rules().judge(str(number + 1), str(number)).correct is not True
    assert Rules().judge(str(-number), str(number)).correct is (number == 0)


@given(st.integers(-(10**15), 10**15), st.integers(-5, 5))
def test_a_decimal_is_equal_to_the_last_digit(millionths, steps):
    gold, answer = Decimal(millionths).scaleb(-6), Decimal(millionths + steps).scaleb(-6)
    assert (Rules().judge(f"{answer:f}", f"{gold:f}").correct is True) is (steps == 0)


@given(
    st.text("abcdefghijklmnop ", min_size=4, max_size=30).filter(str.strip),
    st.integers(0, 40),
    st.sampled_from("qrstuvwxyz"),
)
def test_a_letter_more_is_another_word(text, place, letter):
    text = " ".join(text.split())
    place = min(place, len(text))
    assert Rules().judge(text[:place] + letter + text[place:], text).correct is not True


def test_the_adversary_finds_nothing():
    """20,000 tries here; `python -m tests.adversary` makes 200,000."""
    report = attack(20_000, seed=14)
    assert not report.counterexamples[:20]
    assert report.slowest_s < 1.0
    assert report.outcomes["right", "correct"] > 0.9 * sum(
        count for (made, _), count in report.outcomes.items() if made == "right"
    )
