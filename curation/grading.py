"""Whether an answer is right, told by the row's own reward: what curation calls right is what RL will reward."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer
from curation.rows import CuratedRow
from judge.client import Judge, JudgeSettings
from judge.verdict import Outcome
from reinforcement_learning.rewards import RewardItem, RewardWeights, UndecidedAnswer, load_reward

_WEIGHTS = RewardWeights()
_reward_of = functools.cache(load_reward)
"""The rewards' folder is looked through once: for each of 80,000 answers that was a twelfth of the work."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A verdict, who gave it, and whether asking again may help."""

    outcome: Outcome
    decided_by: str
    why: str = ""
    outage: bool = False


async def graded(row: CuratedRow, episode: Episode, judge: Judge) -> Graded:
    """Grade an episode that did not fail."""
    item = RewardItem(data_source=row.data_source, question=row.question, gold=row.gold, item_id=row.key, extra=row.extra)
    try:
        reward = await _reward_of(row.data_source)(episode, item, judge, _WEIGHTS)
    except UndecidedAnswer as error:
        return Graded(Outcome.UNDECIDED, "nobody", str(error), error.outage)
    return Graded(Outcome.CORRECT if reward.accuracy > 0 else Outcome.INCORRECT, reward.decided_by)


def answered(text: str) -> Episode:
    """An episode that only answers, as the gold's grading needs one."""
    said = f"<think>.</think><answer>{text}</answer>"
    turn = Turn(reply=Reply(text=said, finish="stop"), action=FinalAnswer(text))
    return Episode(opening=(Message("user", "?"),), turns=[turn], end=StopReason.ANSWERED, answer=text)


def judge_identity(settings: JudgeSettings) -> dict[str, object]:
    """What decides a verdict; addresses do not."""
    if not settings.base_urls:
        return {"rules": True, "strict_rules": settings.strict_rules}
    return {name: getattr(settings, name) for name in ("model", "prompt", "strict_rules", "strictness", "votes")}
