"""A judge that is away delays scores; it never makes one."""

import asyncio

import pytest

from judge.verdict import Outcome, Verdict
from reinforcement_learning.outages import OutageSettings, ScoringGate
from reinforcement_learning.rewards import Reward, UndecidedAnswer


class Away:
    """A judge that is away until it is told to come back."""

    def __init__(self, *, away=True):
        self.away = away
        self.asked = 0

    async def ping(self):
        if self.away:
            raise ConnectionError("no judge")

    async def attempt(self):
        self.asked += 1
        if self.away:
            raise UndecidedAnswer("no judge answered", outage=True)
        return Reward(score=1.0, accuracy=1.0, format=1.0, decided_by="judge:x")


def gate(judge, **settings):
    return ScoringGate(judge, OutageSettings(**({"poll_s": 0.01, "window": 8, "max_share": 0.25} | settings)))


async def test_a_few_undecided_answers_are_left_out_and_nothing_waits():
    judge = Away()
    one = gate(judge)
    for _ in range(2):
        with pytest.raises(UndecidedAnswer):
            await one.score(judge.attempt)
    assert one.share == 0.25


async def test_beyond_the_share_finished_episodes_wait_and_are_all_scored_when_the_judge_is_back(caplog):
    judge = Away()
    one = gate(judge)
    tasks = [asyncio.create_task(one.score(judge.attempt)) for _ in range(40)]
    await asyncio.sleep(0.1)
    left_out = [task for task in tasks if task.done()]
    assert len(left_out) == 2
    judge.away = False
    async with asyncio.timeout(5):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, Reward) and result.score == 1.0 for result in done) == 38
    assert "training waits for the judge" in caplog.text
    assert "the judge is back" in caplog.text
    assert one.share == 0.0


async def test_it_waits_again_for_a_second_outage():
    judge = Away()
    one = gate(judge, max_share=0.0)
    for _ in range(2):
        judge.away = True
        task = asyncio.create_task(one.score(judge.attempt))
        await asyncio.sleep(0.05)
        assert not task.done()
        judge.away = False
        assert (await task).score == 1.0


async def test_after_patience_answers_are_left_out_and_still_not_zero():
    judge = Away()
    with pytest.raises(UndecidedAnswer):
        await gate(judge, max_share=0.0, patience_s=0.05).score(judge.attempt)


async def test_an_answer_that_no_judge_can_read_is_left_out_at_once():
    async def unreadable():
        raise UndecidedAnswer("an unreadable verdict")

    with pytest.raises(UndecidedAnswer):
        await gate(Away(away=False), max_share=0.0).score(unreadable)


async def test_a_rollout_that_is_cancelled_stops_waiting_and_the_others_go_on():
    judge = Away()
    one = gate(judge, max_share=0.0)
    tasks = [asyncio.create_task(one.score(judge.attempt)) for _ in range(2)]
    await asyncio.sleep(0.05)
    tasks[0].cancel()
    judge.away = False
    async with asyncio.timeout(5):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert isinstance(done[1], Reward)


def test_an_undecided_verdict_is_no_outage_unless_it_says_so():
    assert Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody").outage is False
