"""Rewards over an episode. One file a reward: `rewards/<name>.py` with `async def reward(episode, task, judge)`.

A data source is rewarded by the file of its name, with `-` read as `_`; `DATA_SOURCES` holds the exceptions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.episode import Episode
from agent.errors import EpisodeFailure
from agent.loading import load_plugin, plugin_names
from judge.verdict import Verdict

DATA_SOURCES = {"vstar-test": "vstar"}
MAX_ANSWER_CHARS = 300
"""An answer this long is scored 0: it lists candidates for the judge. Source: DeepEyesV2 0373e6e, deepeyesv2.py."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardWeights:
    """Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py."""

    accuracy: float = 0.8
    format: float = 0.2
    search_cost_frac: float = 0.1
    """Share of the accuracy term given up by a `search` episode that used a search tool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What an episode is scored against."""

    data_source: str
    question: str
    gold: str
    item_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """The score and its parts; every part is logged."""

    score: float
    accuracy: float
    format: float
    decided_by: str


class AnswerJudge(Protocol):
    """`judge.client.Judge`, or a fake."""

    async def judge(self, answer: str | None, gold: str, *, question: str) -> Verdict: ...


class UndecidedAnswer(EpisodeFailure):
    """Nobody could judge the answer: the episode is left out of the batch and counted, never scored 0."""


RewardFunction = Callable[[Episode, Task, AnswerJudge], Awaitable[Reward]]


def load_reward(data_source: str) -> RewardFunction:
    """The reward function of a data source.

    Raises:
        LookupError: Unknown data source; the message lists the known ones.
    """
    name = DATA_SOURCES.get(data_source, data_source).replace("-", "_")
    known = [source for source in plugin_names(__name__) if source not in DATA_SOURCES.values()]
    if name not in plugin_names(__name__):
        raise LookupError(f"no reward for data source {data_source!r}; known are: {', '.join(known + list(DATA_SOURCES))}")
    function: RewardFunction = load_plugin(__name__, name).reward
    return function


async def decide(episode: Episode, task: Task, judge: AnswerJudge) -> Verdict:
    """Judge the episode's answer.

    Raises:
        UndecidedAnswer: Nobody could tell.
    """
    verdict = await judge.judge(episode.answer, task.gold, question=task.question)
    if verdict.correct is None:
        raise UndecidedAnswer(f"{task.item_id or task.data_source}: {verdict.reason}")
    return verdict
