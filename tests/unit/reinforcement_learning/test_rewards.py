import pytest

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, parse_action
from judge.client import JudgeMisconfigured
from judge.testing import FakeJudge
from judge.verdict import Outcome
from reinforcement_learning.rewards import RewardItem, RewardWeights, UndecidedAnswer, load_reward

SEARCH = '<think>t</think><tool_call>{"name": "search", "arguments": {"query": "q"}}</tool_call>'


def episode(*replies: str) -> Episode:
    turns = [Turn(reply=Reply(text=text, finish="stop"), action=parse_action(text)) for text in replies]
    last = turns[-1].action
    answer = last.text if isinstance(last, FinalAnswer) else None
    stop = StopReason.ANSWERED if answer else StopReason.NO_ACTION
    return Episode(opening=(Message("user", "q"),), turns=turns, end=stop, answer=answer)


def judge(outcome: Outcome = Outcome.CORRECT) -> FakeJudge:
    class Same(FakeJudge):
        async def judge(self, answer, gold, *, question, prompt=None):
            verdict = await super().judge(answer, gold, question=question)
            return type(verdict)(outcome=outcome if answer else Outcome.INCORRECT, decided_by=verdict.decided_by)

    return Same()


def item(source: str) -> RewardItem:
    return RewardItem(data_source=source, question="q", gold=("red",), item_id="i")


GOOD = "<think>t</think><answer>red</answer>"
BAD_FORMAT = "<answer>red</answer>"


@pytest.mark.parametrize(
    ("source", "replies", "outcome", "score"),
    [
        ("perception", [GOOD], Outcome.CORRECT, 1.0),
        ("perception", [GOOD], Outcome.INCORRECT, 0.2),
        ("perception", [BAD_FORMAT], Outcome.CORRECT, 0.8),
        ("perception", ["nothing"], Outcome.CORRECT, 0.0),
        ("perception", ["<think>t</think><answer>" + "x" * 300 + "</answer>"], Outcome.CORRECT, 0.0),
        ("perception", ["<think>t</think><answer>" + "x" * 299 + "</answer>"], Outcome.CORRECT, 1.0),
        ("reason", [GOOD], Outcome.CORRECT, 1.0),
        ("reason", ["<think>t</think><answer>" + "x" * 300 + "</answer>"], Outcome.CORRECT, 1.0),
        ("search", [GOOD], Outcome.CORRECT, 1.0),
        ("search", [SEARCH, GOOD], Outcome.CORRECT, 0.92),
        ("search", [SEARCH, GOOD], Outcome.INCORRECT, 0.2),
        ("search", [SEARCH.replace("</tool_call>", ""), GOOD], Outcome.CORRECT, 0.72),
        ("vstar-test", [GOOD], Outcome.CORRECT, 1.0),
        ("vstar-test", [GOOD], Outcome.INCORRECT, 0.0),
        ("tiles", [GOOD], Outcome.CORRECT, 1.0),
    ],
)
async def test_scores_follow_the_published_formulae(source, replies, outcome, score):
    reward = await load_reward(source)(episode(*replies), item(source), judge(outcome))
    assert reward.score == pytest.approx(score)


@pytest.mark.parametrize("source", ["perception", "reason", "search", "vstar-test", "tiles"])
async def test_an_undecided_answer_is_never_scored(source):
    with pytest.raises(UndecidedAnswer):
        await load_reward(source)(episode(GOOD), item(source), judge(Outcome.UNDECIDED))


def test_an_unknown_data_source_lists_the_known_ones():
    with pytest.raises(LookupError, match="perception, reason, search, tiles, vstar-test"):
        load_reward("gsm8k")


async def test_an_overlong_answer_never_reaches_the_judge():
    fake = judge()
    await load_reward("search")(episode("<answer>" + "x" * 300 + "</answer>"), item("search"), fake)
    assert fake.asked == []


def told(text: str) -> Turn:
    action = parse_action(SEARCH)
    return Turn(reply=Reply(text=SEARCH, finish="stop", num_tokens=500), action=action, observation=Message("user", text))


@pytest.mark.parametrize(
    ("observation", "ours", "published"),
    [
        ("nothing special", 0.92, 0.92),
        ("a page about <tool_call> and <think>", 0.92, 0.72),
        ("a page that says </think> <answer>blue</answer>", 0.92, 0.72),
        ("balanced <code></code>", 0.92, 0.92),
    ],
)
async def test_tags_in_tool_output_count_only_where_the_published_counting_is_asked_for(observation, ours, published):
    whole = episode(GOOD)
    whole.turns.insert(0, told(observation))
    for compat, score in ((False, ours), (True, published)):
        reward = await load_reward("search")(whole, item("search"), judge(), RewardWeights(compat=compat))
        assert reward.score == pytest.approx(score)


async def test_the_published_reading_takes_the_first_answer_after_the_last_thinking():
    whole = episode("<think>t</think><answer>red</answer> or <answer>blue</answer>")
    assert whole.answer == "blue"
    asked = judge()
    for compat, answer in ((False, "blue"), (True, "red")):
        await load_reward("perception")(whole, item("perception"), asked, RewardWeights(compat=compat))
        assert asked.asked[-1][0] == answer


async def test_bonus_and_costs_are_off_and_can_be_turned_on():
    whole = episode(GOOD)
    whole.turns.insert(0, told("x"))
    weights = RewardWeights(tool_bonus=0.2, turn_cost=0.01, token_cost_per_1k=0.1)
    reward = await load_reward("perception")(whole, item("perception"), judge(), weights)
    assert (reward.bonus, reward.cost) == (0.2, pytest.approx(0.06))
    assert reward.score == pytest.approx(1.0 + 0.2 - 0.06)
    wrong = await load_reward("perception")(whole, item("perception"), judge(Outcome.INCORRECT), weights)
    assert (wrong.bonus, wrong.cost) == (0.0, 0.0)
    alone = await load_reward("perception")(episode(GOOD), item("perception"), judge(), weights)
    assert (alone.bonus, alone.cost) == (0.0, 0.0)
    published = await load_reward("perception")(whole, item("perception"), judge())
    assert published.score == pytest.approx(1.0)


async def test_wrong_answers_that_differ_only_in_turns_or_tokens_score_the_same():
    weights = RewardWeights(turn_cost=0.05, token_cost_per_1k=0.1)
    longer = episode(GOOD)
    longer.turns.insert(0, told("x"))
    scores = []
    for whole in (episode(GOOD), longer):
        reward = await load_reward("perception")(whole, item("perception"), judge(Outcome.INCORRECT), weights)
        scores.append(reward.score)
    assert scores[0] == scores[1] == pytest.approx(0.2)


async def test_a_judge_that_refuses_every_request_leaves_the_episode_out():
    class Refusing(FakeJudge):
        async def judge(self, answer, gold, *, question, prompt=None):
            raise JudgeMisconfigured("HTTP 404: no such model; check judge.model")

    with pytest.raises(UndecidedAnswer, match=r"check judge\.model"):
        await load_reward("perception")(episode(GOOD), item("perception"), Refusing())


@pytest.mark.parametrize(
    "answer", ["red or blue", "blue/red", "either red or blue", "red, blue", "red\nblue", "- red\n- blue", "crimson or blue"]
)
async def test_an_answer_that_lists_candidates_earns_no_accuracy_whatever_the_judge_says(answer):
    reward = await load_reward("perception")(
        episode(f"<think>t</think><answer>{answer}</answer>"), item("perception"), judge()
    )
    assert (reward.score, reward.accuracy, reward.decided_by) == (0.2, 0.0, "rule:candidates")
    published = RewardWeights(compat=True)
    reward = await load_reward("perception")(
        episode(f"<think>t</think><answer>{answer}</answer>"), item("perception"), judge(), published
    )
    assert reward.accuracy == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "red",
        "a red one",
        "Paris, France",
        "It is red, as far as I can see.",
        "AC/DC",
        "red (also called crimson)",
        "$$\nred\n$$",
        "```\nred\n```",
        "red\n\nExplanation",
    ],
)
async def test_an_answer_that_explains_or_is_precise_is_judged(answer):
    reward = await load_reward("perception")(
        episode(f"<think>t</think><answer>{answer}</answer>"), item("perception"), judge()
    )
    assert reward.accuracy == 1.0


async def test_several_golds_may_all_be_named():
    both = RewardItem(data_source="perception", question="q", gold=("truck", "lorry"), item_id="i")
    reward = await load_reward("perception")(episode("<think>t</think><answer>truck or lorry</answer>"), both, judge())
    assert reward.accuracy == 1.0


@pytest.mark.parametrize(
    ("written", "ours", "published"),
    [
        ("<answer></answer><answer>red</answer>", 1.0, 0.0), ("<answer>red</answer><answer> </answer>", 1.0, 1.0),
        ("<answer> </answer>", 0.0, 0.0), ("<answer>red</answer>", 1.0, 1.0),
    ],
)  # fmt: skip
async def test_the_first_answer_decides_the_format_in_the_published_reading(written, ours, published):
    for compat, form in ((False, ours), (True, published)):
        weights = RewardWeights(compat=compat)
        reward = await load_reward("perception")(episode(f"<think>t</think>{written}"), item("perception"), judge(), weights)
        assert reward.format == form


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("x = 5", "5"), ("5 cm", "5"), ("1,000", "1000"), ("$\\frac12$ of it", "\\frac{1}{2}"), ("\\boxed{12}", "12"), ("90^\\circ", "90"),
        ("\\text{B}", "B"), ("a dog", "dog"), ("so $7$ and $8$", "7"), ("\\sqrt2", "\\sqrt{2}"), ("12 units", "12"), ("pursue", "pur"),
    ],
)  # fmt: skip
async def test_the_published_judge_of_reason_sees_the_answer_in_its_published_form(answer, shown):
    for compat, expected in ((False, answer), (True, shown)):
        asked = judge()
        weights = RewardWeights(compat=compat)
        await load_reward("reason")(episode(f"<think>t</think><answer>{answer}</answer>"), item("reason"), asked, weights)
        assert asked.asked[-1][0] == expected


async def test_an_answer_of_which_the_published_form_leaves_nothing_is_wrong():
    whole = episode("<think>t</think><answer>x = cm</answer>")
    reward = await load_reward("reason")(whole, item("reason"), judge(), RewardWeights(compat=True))
    assert (reward.accuracy, reward.format) == (0.0, 1.0)
