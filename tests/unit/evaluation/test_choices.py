"""Multiple choice under the three profiles, with every odd case that was measured on the reference."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring.choices import first_letter, grade_choice, grade_first_letter, infer_choice, infer_option
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import PROFILES, load_profile
from judge.client import Judge, JudgeSettings
from tests.queued_transport import queued_transport

CHOICES = {"A": "red", "B": "blue", "C": "green", "D": "black"}
HEAD, PACKAGE, FORK = (PROFILES[name] for name in ("vlmevalkit", "ms-vlmeval", "deepeyesv2-fork"))
LATE = "The answer is B. Because of the long and winding road there"


def grader(profile, *replies, parity=False, attempts=1):
    answers = [httpx.Response(200, json={"choices": [{"message": {"content": text}}]}) for text in replies]
    transport, seen = queued_transport(*answers)
    urls = ("http://a/v1",) if replies else ()
    made = Grader(profile, Judge(JudgeSettings(base_urls=urls, attempts=attempts), transport=transport), parity=parity)
    return made, seen


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("**B**", "B"), ("Answer: B", "B"), (r"\boxed{C}", "C"), ('"B"', None), ("b", None),
        ("A or B", None), ("", None), ("The answer is B", "B"), ("Z", "Z"), ("Cannot determine the answer", "Z"),
        ("<answer>C</answer>", None), ("I think A dog is B", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_option_letters_are_read_by_vlmevalkits_rule(profile, answer, letter):
    assert infer_option(answer, CHOICES, profile) == letter


def test_an_announced_letter_counts_anywhere_only_under_the_newer_rule():
    assert infer_option(LATE, CHOICES, HEAD) == "B"
    assert infer_option(LATE, CHOICES, PACKAGE) is None
    assert infer_option(LATE, CHOICES, FORK) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Answer is B since that is what stands there", "B"), ("the correct answer is d because it must be so", "D"),
        ("The answer is **a** in this picture as I see it", "A"), ("The answer is definitely one of those that I see", "D"),
        ("THE ANSWER  IS\n**b**, as everybody can see in there", "B"), ("The answer is (B) because that is what stands there", None),
        ("The answer is: C, as everybody can see in there", None), ("The answer is e for everybody who can see in there", None),
        ("The answer is definitely Z", "Z"),
    ],
)  # fmt: skip
def test_the_newer_rule_reads_any_case_behind_blanks_and_stars_alone_and_knows_no_end_of_a_word(answer, letter):
    assert infer_option(answer, CHOICES, HEAD) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("it is blue", "B"), ("both red and blue", None), ("x" * 60 + "blue", None), ("B", "B"), ("BLUE.", "B")],
)
def test_an_options_text_counts_if_it_is_the_only_one(answer, letter):
    assert infer_choice(answer, CHOICES) == letter


@given(st.text(max_size=80))
def test_reading_an_option_never_raises(text):
    for profile in PROFILES.values():
        assert infer_choice(text, CHOICES, profile) in {*CHOICES, "Z", None}
        assert isinstance(first_letter(text, profile), str)


@pytest.mark.parametrize(
    ("answer", "head", "package", "fork"),
    [
        ("", "A", "A", "A"), ("b", "B", "B", "B"), ("Bus stop", "B", "B", "B"), ("Answer: C", "A", "A", "A"),
        ("**Answer**: D", "A", "A", "A"), ("The answer is C", "C", "C", "C"), ("Best answer: D", "D", "B", "B"),
        (r"\boxed{(C)}", "C", "C", "(C)"), (r"\boxed{(A)} no, \boxed{(C)}", "A", "A", "(C)"), (r"\boxed{(C)} no, \boxed{C}", "C", "C", "C"),
        ("\\boxed{(A)}\n\\boxed{(C)}", "A", "A", "(A)"), (r"The answer is \boxed{The answer(C)}", "C", "C", "C"), ("F", "", "", ""), ("The best option is D", "D", "D", "D"),
    ],
)  # fmt: skip
def test_the_first_capital_counts_whatever_it_is_part_of(answer, head, package, fork):
    if answer == "The best option is D":
        package = fork = "D"
    assert [first_letter(answer, profile) for profile in (HEAD, PACKAGE, FORK)] == [head, package, fork]


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [("<answer>blue</answer>", "B", True), ("", "A", False), ("   ", "A", False), (r"\boxed{(C)}", "C", True)],
)
def test_a_tagged_answer_is_read_in_capitals_and_an_empty_one_is_wrong(answer, gold, correct):
    assert grade_first_letter(answer, gold, HEAD).correct is correct
    assert grade_first_letter(r"\boxed{(C)}", "C", FORK).correct is False


async def choose(answer, made, gold="B"):
    return await grade_choice(answer, gold, CHOICES, made, question="Which colour?", item_id="7")


async def test_without_a_judge_an_unread_answer_is_wrong_and_counted_as_unparsed():
    made, _ = grader(HEAD)
    found = await choose("between A and B", made)
    assert (found.correct, found.decided_by) == (False, "rule:unparsed")


async def test_the_judge_names_the_option_where_no_rule_can():
    made, seen = grader(HEAD, "B")
    found = await choose("between A and B", made)
    assert (found.correct, found.decided_by, found.extracted) == (True, "judge:judge", "B")
    assert b"Which colour?" in seen[0].content
    assert made.prompts.keys() == {"choice"}


async def test_an_unreadable_judge_is_not_evaluated_and_in_parity_a_seeded_draw():
    made, _ = grader(HEAD, "hm", "hm", attempts=2)
    found = await choose("between A and B", made)
    assert (found.correct, found.decided_by) == (None, "judge_unreadable")
    drawn = []
    for _ in range(2):
        made, _ = grader(HEAD, "hm", parity=True)
        drawn.append(await choose("between A and B", made))
    assert drawn[0] == drawn[1]
    assert drawn[0].decided_by == "random"


async def test_a_judge_that_is_away_is_never_a_draw():
    transport, _ = queued_transport(httpx.ConnectError("away"))
    judge = Judge(JudgeSettings(base_urls=("http://a/v1",), attempts=1), transport=transport)
    found = await choose("between A and B", Grader(HEAD, judge, parity=True))
    assert (found.correct, found.decided_by) == (None, "judge_outage")


async def test_under_the_fork_an_answer_without_an_option_is_judged_against_the_gold_letter():
    made, seen = grader(FORK, "Z", "CORRECT")
    assert (await choose("the colour of the sky", made)).correct is True
    assert len(seen) == 2
    made, seen = grader(HEAD, "Z")
    assert (await choose("the colour of the sky", made)).correct is False


def test_an_unknown_profile_lists_those_that_are():
    with pytest.raises(LookupError, match="vlmevalkit, ms-vlmeval, deepeyesv2-fork"):
        load_profile("none")
