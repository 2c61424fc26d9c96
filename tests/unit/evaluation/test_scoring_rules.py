"""The rules of each benchmark, with the odd cases that were found by running the reference."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.benchmarks import Item, Scored, load_benchmark
from evaluation.benchmarks.dynamath import innermost, read_short
from evaluation.benchmarks.tir_bench import choice_letter, grid, set_overlap
from evaluation.benchmarks.treebench import boxes_in, mean_best_overlap
from evaluation.errors import BenchmarkError
from evaluation.scoring.extraction import as_text
from evaluation.scoring.grader import Grade, Prediction
from tests.unit.evaluation.scoring import FORK, HEAD, correct, grader, item

# ---- MathVista ----


@pytest.mark.parametrize(
    ("kind", "gold", "answer", "reply", "right"),
    [
        ("integer", "14", "14", None, True), ("integer", "14", "14.0", "14.0", False), ("integer", "0", "0", "0", True),
        ("float", "1.5", "1.50", None, True), ("float", "1.5", "it is", "1.5", True), ("text", "north", "north", "north", False),
        ("list", "[1, 2]", "[1, 2]", "[1, 2]", False), ("integer", "14", "fourteen", "14", True),
    ],
)  # fmt: skip
async def test_answers_are_compared_by_type(kind, gold, answer, reply, right):
    one = item(gold, question_type="free_form", answer_type=kind)
    made = grader(reply) if reply is not None else grader()
    assert await correct("mathvista", one, answer, made) is right


async def test_a_right_zero_goes_to_the_judge_and_without_one_is_not_evaluated():
    assert await correct("mathvista", item("0", question_type="free_form", answer_type="integer"), "0") is None


def test_an_empty_extraction_is_asked_for_again():
    assert as_text("") is None


# ---- MathVerse, CharXiv, LogicVista: the judge's form ----


@pytest.mark.parametrize(
    ("verdict", "right", "in_parity"),
    [
        ("1", True, True),
        ("0", False, False),
        (" 1 ", True, True),
        ("1.", True, False),
        ("**0**", False, False),
        ("yes", None, False),
    ],
)
async def test_mathverse_takes_one_and_zero_only(verdict, right, in_parity):
    one = item("2", question_for_eval="Find x.", subject="s", subfield="f")
    assert await correct("mathverse", one, "x is two", grader("two", verdict)) is right
    assert await correct("mathverse", one, "x is two", grader("two", verdict, parity=True)) is in_parity


QUERY = 'Judge {PREDICTION}. JSON with "extracted_answer" and "score".'


@pytest.mark.parametrize(
    ("reply", "right", "in_parity"),
    [
        ('{"extracted_answer": "4", "score": 1}', True, True), ('{"extracted_answer": "4", "score": 0}', False, False),
        ('```json\n{"extracted_answer": "4", "score": 1}\n```', True, False), ('{"extract_answer": "4", "score": 1}', None, False),
        ('{"extracted_answer": "4", "score": "right"}', None, False), ("[1]", None, False), ("no", None, False),
    ],
)  # fmt: skip
async def test_charxiv_wants_json_with_the_right_keys_and_in_parity_bare(reply, right, in_parity):
    one = item("4", grading_query=QUERY)
    assert await correct("charxiv_reasoning", one, "4", grader(reply)) is right
    assert await correct("charxiv_reasoning", one, "4", grader(reply, parity=True)) is in_parity


@pytest.mark.parametrize("parity", [False, True])
async def test_charxiv_sums_the_judges_fractions(parity):
    charxiv, rows = load_benchmark("charxiv_reasoning"), []
    for number, score in enumerate((1, 0.5, 0)):
        one = Item(item_id=str(number), question="q", gold="4", category="c", fields={"grading_query": QUERY})
        reply = f'{{"extracted_answer": "4", "score": {score}}}'
        rows.append(Scored(one, await charxiv.grade(one, Prediction("4"), grader(reply, parity=parity))))
    assert [row.grade.correct for row in rows] == [True, False, False]
    assert charxiv.scores(rows, HEAD)["Overall"] == 0.5


async def test_charxivs_other_version_is_an_error_and_not_zero():
    with pytest.raises(BenchmarkError, match="would score 0 for everything"):
        await correct("charxiv_reasoning", item("4", grading_query=QUERY), "4", grader("{}", profile=FORK))


@pytest.mark.parametrize(
    ("reply", "right", "in_parity"),
    [
        ("CA", True, True), ("AC", True, True), ("A, C", True, False), ("**AC**", True, False), ("A.", False, False), ("B", False, False),
        ("a", None, False), ("NONE", None, False), ("The answer is C because A is wrong", None, False),
    ],
)  # fmt: skip
async def test_logicvista_wants_capitals_and_in_parity_nothing_else(reply, right, in_parity):
    one = item("C, A", category="['inductive']")
    assert await correct("logicvista", one, "so", grader(reply)) is right
    assert await correct("logicvista", one, "so", grader(reply, parity=True)) is in_parity


MARKED = [
    "**14**",
    "14.",
    "$14$",
    "\\boxed{14}",
    "```\n14\n```",
    "`14`",
    "The answer is **14**.",
    "**Final Answer**\n\n14",
    '{"answer": 14}',
]


@pytest.mark.parametrize("reply", [*MARKED, "<think>12? 13?</think>\n\n14"])
@pytest.mark.parametrize(("gold", "right"), [("14", True), ("15", False)])
async def test_marks_around_an_extraction_are_read_and_in_parity_they_are_not(reply, gold, right):
    number = item(gold, question_type="free_form", answer_type="integer")
    assert await correct("mathvista", number, "about that", grader(reply)) is right
    assert await correct("mathvision", item(gold), "about that", grader(reply)) is right
    assert await correct("dynamath", item(f"{gold}.0", answer_type="float"), "about that", grader(reply)) is right
    if reply in MARKED:
        assert await correct("mathvista", number, "about that", grader(reply, parity=True)) is False


@pytest.mark.parametrize(
    "reply",
    ["It is 14", "14 or 15", "- 14", "about 14", "14 of them are", "\\boxed{14} or \\boxed{15}", "fourteen", "14\n15"],
)
async def test_an_extraction_that_is_none_is_not_evaluated(reply):
    number = item("14", question_type="free_form", answer_type="integer")
    for name, one in (("mathvista", number), ("mathvision", item("14")), ("dynamath", item("14.0", answer_type="float"))):
        assert await correct(name, one, "about that", grader(reply)) is None, name


@pytest.mark.parametrize(
    ("reply", "right"), [("x = 3", True), ("x=4", False), ("null", False), ("2x", False), ("3 cm", None)]
)
async def test_a_value_with_its_name_is_the_value(reply, right):
    assert await correct("mathvision", item("3"), "so", grader(reply)) is right


# ---- DynaMath ----


@pytest.mark.parametrize(
    ("answer", "kind", "value"),
    [
        ("12", "float", 12.0), ("1.5 m", "float", 1.5), ("2π", "float", 2 * math.pi), ("x", "float", None), ("a", "multiple choice", "A"),
        ("option D", "multiple choice", "D"), ("(B)", "multiple choice", "B"), ("The answer is A", "multiple choice", None),
        ("Yes", "text", "Yes"), (3, "float", None), ("5²", "float", None), ("³", "float", None), ("①", "float", None),
    ],
)  # fmt: skip
def test_short_answers_are_read_by_type(answer, kind, value):
    assert read_short(answer, kind) == value


async def test_a_text_is_right_if_the_gold_answer_contains_it():
    assert await correct("dynamath", item("yes", answer_type="text"), '{"short answer": "y"}') is True
    assert await correct("dynamath", item("1.500", answer_type="float"), '{"short answer": "1.501"}') is True
    assert await correct("dynamath", item("1.500", answer_type="float"), '{"short answer": "1.502"}') is False
    assert innermost('so ```json {"a": 1}```') == '{"a": 1}'


@pytest.mark.parametrize("answer", ['{"short answer": ""}', ""])
async def test_an_empty_short_answer_is_wrong_though_every_text_contains_it(answer):
    assert await correct("dynamath", item("yes", answer_type="text"), answer) is False


def scored(one, right, **edits):
    return Scored(one, Grade(correct=right, decided_by="rule:x", **edits))


def test_the_worst_case_wants_every_variant_right():
    rows = []
    for qid, variant, right in ((0, 1, True), (0, 2, False), (10, 1, True), (10, 2, True)):
        fields = {"qid": str(qid), "varid": str(variant), "answer_type": "float", "knowledge_level": "high school"}
        rows.append(
            scored(Item(item_id=f"{qid}{variant}", question="q", gold="1", category="algebra", fields=fields), right)
        )
    table = load_benchmark("dynamath").scores(rows, HEAD)
    assert (table["Average"], table["Worst Case"]) == (0.75, 0.5)


# ---- We-Math ----


def problem(name, steps, rights):
    parts = [*map(str, range(1, steps + 1)), "multi"]
    return [
        scored(
            Item(item_id=f"{name}{part}", question="q", gold="A", fields={"ID": name, "key": f"{steps}steps_{part}"}), right
        )
        for part, right in zip(parts, rights, strict=True)
    ]


def test_wemath_tells_mastery_from_rote_and_divides_by_the_problems_that_were_asked():
    rows = [
        *problem("mastered", 2, [True, True, True]), *problem("rote", 2, [True, False, True]), *problem("by heart", 3, [False] * 3 + [True]),
        *problem("not general", 2, [True, True, False]), *problem("lacking", 2, [False, True, False]),
    ]  # fmt: skip
    table = load_benchmark("wemath").scores(rows, HEAD)
    assert table["Score (Strict)"] == pytest.approx((5 - 0.5 - 1 - 2) / 5)
    assert table["Score (Loose)"] == pytest.approx((5 - 0.5 - 1 - 1) / 5)
    assert table["RoteMemorization (Strict)"] == pytest.approx(2 / 3)


# ---- OCRBench, TreeBench, HR-Bench ----


async def test_text_counts_if_it_is_contained_and_formulas_mind_case_but_no_blanks():
    assert await correct("ocrbench", item("['Main Street']", category="Doc-oriented VQA"), "it says MAIN\nstreet") is True
    formula = item(r"['\frac { x } { 2 }']", category="Handwritten Mathematical Expression Recognition")
    assert await correct("ocrbench", formula, r"\frac{x}{2}") is True
    assert await correct("ocrbench", formula, r"\frac{X}{2}") is False


def test_boxes_are_read_as_the_reference_reads_them():
    assert boxes_in("<box>[1,2,3,4]</box><box>[5, 6, 7, 8]</box><box>[9,9,1,1]</box>") == [(1, 2, 3, 4)]
    assert mean_best_overlap([(0, 0, 2, 2)], [(0, 0, 2, 2), (4, 4, 5, 5)]) == 0.5
    assert mean_best_overlap([], [(0, 0, 1, 1)]) == 0.0
    assert mean_best_overlap([(0, 0, 1, 1)], []) == 1.0


async def test_the_fork_sees_no_boxes_outside_an_agents_answer():
    one = item("A", category="Perception/OCR", target_instances="[[0, 0, 10, 10]]")
    said = Prediction("A", "<think><box>[0,0,10,10]</box></think><answer>A</answer>")
    tree = load_benchmark("treebench")
    assert (await tree.grade(one, said, grader())).extra["iou"] == 1.0
    assert (await tree.grade(one, said, grader(profile=FORK))).extra["iou"] == 0.0
    whole = Prediction("<think><box>[0,0,10,10]</box></think> A")
    assert (await tree.grade(one, whole, grader(profile=FORK))).extra["iou"] == 1.0


def test_hrbench_is_the_mean_over_rotations():
    rows = []
    for cycle, rights in enumerate(([True, True], [True, False], [False, False], [True, True])):
        for number, right in enumerate(rights):
            one = Item(item_id=f"{cycle}{number}", question="q", gold="A", category=("single", "cross")[number],
                       fields={"cycle_category": str(cycle)})  # fmt: skip
            rows.append(scored(one, right))
    table = load_benchmark("hrbench4k").scores(rows, HEAD)
    assert (table["Overall"], table["single"], table["cross"]) == (0.625, 0.75, 0.5)


def test_mathverses_headline_is_the_mean_of_its_versions():
    rows = [scored(Item(item_id=str(n), question="q", gold="1", category=v, fields={"subject": "s", "subfield": "f"}), right)
            for n, (v, right) in enumerate([("Text Lite", True), ("Text Lite", True), ("Vision Only", False)])]  # fmt: skip
    table = load_benchmark("mathverse").scores(rows, HEAD)
    assert (table["Overall"], table["Micro"]) == (0.5, pytest.approx(2 / 3))


# ---- search, SimpleVQA, RealX, TIR ----


async def test_any_gold_answer_will_do_and_exact_match_stands_beside_the_verdict():
    one = Item(item_id="1", question="Who?", gold="The Louvre", fields={"golds": '["The Louvre", "Musée du Louvre"]'})
    found = await load_benchmark("fvqa").grade(one, Prediction("louvre"), grader())
    assert (found.correct, found.extra["em"], found.extra["sub_em"]) == (True, 1.0, 1.0)
    assert (await load_benchmark("fvqa").grade(one, Prediction("a museum"), grader())).decided_by == "no_judge"


@pytest.mark.parametrize(
    ("reply", "right"), [("CORRECT", True), ("INCORRECT", False), ("NOT_ATTEMPTED", False), ("正确。", None)]
)
async def test_simplevqa_tells_wrong_from_not_attempted(reply, right):
    one = Item(item_id="1", question="Who?", gold="Ada Lovelace", fields={"golds": '["Ada Lovelace"]'})
    simple = load_benchmark("simplevqa")
    found = await simple.grade(one, Prediction("some countess"), grader(reply))
    assert found.correct is right
    if right is not None:
        table = simple.scores([Scored(one, found), scored(one, True, extra={"em": 1.0, "sub_em": 1.0})], HEAD)
        assert table["Attempted"] == (0.5 if reply == "NOT_ATTEMPTED" else 1.0)


def test_realx_axes_overlap_and_integration_is_all_three():
    rows = [scored(Item(item_id="1", question="q", gold="a", category="Perception,Reasoning,Search,Integration"), True, extra={"em": 1, "sub_em": 1}),
            scored(Item(item_id="2", question="q", gold="a", category="Perception"), False, extra={"em": 0, "sub_em": 0})]  # fmt: skip
    table = load_benchmark("realx").scores(rows, HEAD)
    assert (table["Perception"], table["Integration"], table["Overall"]) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize(
    ("task", "gold", "answer", "score"),
    [
        ("color", "B", "I see (A) and (B), the answer is B", 1.0), ("math", "12", "12", 1.0), ("ocr", "EXIT", "It says EXIT 5", 1.0),
        ("word_search", "[3, 4]", "at (3, 4)", 1.0), ("spot_difference", "[1, 5, 9]", "1, 5", 2 / 3), ("contrast", "2.5", "2.4", 0.0),
        ("jigsaw", "[4, 1, 3, 2]", "[4, 1, 2, 3]", 0.5), ("color", "AC", "CA", 1.0), ("maze", "D", "", 0.0),
    ],
)  # fmt: skip
async def test_tir_bench_is_scored_by_the_kind_of_answer(task, gold, answer, score):
    found = await load_benchmark("tir_bench").grade(item(gold, category=task, difficulty="2"), Prediction(answer), grader())
    assert found.score == pytest.approx(score)
    assert choice_letter("(A) or (B)") == "B"
    assert grid("1 2 3", 2) == []
    assert set_overlap(set(), set()) == 1.0


# ---- properties of every table ----


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=40))
def test_overall_is_the_mean_over_all_and_macro_lies_among_the_groups(rows):
    made = [
        scored(Item(item_id=str(n), question="q", gold="A", category=group), right) for n, (group, right) in enumerate(rows)
    ]
    table = load_benchmark("vstar").scores(made, HEAD)
    assert table["Overall"] == pytest.approx(sum(right for _, right in rows) / len(rows))
    groups = [value for name, value in table.items() if name in "abc"]
    assert min(groups) <= table.get("Macro", table["Overall"]) <= max(groups) + 1e-12
