"""Rewards over an episode. One file a reward: `rewards/<name>.py` with `async def reward(episode, item, judge, weights)`.

A data source is rewarded by the file of its name, with `-` read as `_`; `DATA_SOURCES` holds the exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.episode import Episode
from agent.errors import EpisodeFailure
from agent.loading import load_plugin, plugin_names
from agent.protocol import FormatRule, format_errors
from judge.client import JudgeMisconfigured
from judge.rules import lists_candidates
from judge.verdict import Outcome, Verdict

DATA_SOURCES = {"vstar-test": "vstar"}
MAX_ANSWER_CHARS = 300
"""An answer this long is scored 0: it lists candidates for the judge. Source: DeepEyesV2 0373e6e, deepeyesv2.py."""


class RewardWeights(BaseModel):
    """`agent.reward:` of a recipe. Source of the first three: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float = 0.8
    format: float = 0.2
    search_cost_frac: float = Field(0.1, ge=0, le=1)
    """Share of the accuracy term given up by a `search` episode that used a search tool."""
    tool_bonus: float = Field(0.0, ge=0)
    """Added to a right answer of an episode that called a tool; not published, a port uses 0.2 to keep tools in use."""
    turn_cost: float = Field(0.0, ge=0)
    """Taken off a right answer for each turn after the first; not published. A wrong answer pays nothing: in a group whose
    answers are all wrong the cost would be the only difference, which the division by the deviation makes a large one."""
    token_cost_per_1k: float = Field(0.0, ge=0)
    """Taken off a right answer for each thousand tokens that the model wrote; not published."""
    compat: bool = False
    """Count tags and read the answer as published: in the whole text, tool output included; the first answer counts, and its
    form. What of the published scorer is not done even so: reinforcement_learning/README.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardItem:
    """What an episode is scored against."""

    data_source: str
    question: str
    gold: tuple[str, ...]
    """Accepted answers: an answer is right if it is any of them."""
    item_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """The score and its parts; every part is logged."""

    score: float
    accuracy: float
    format: float
    decided_by: str
    bonus: float = 0.0
    cost: float = 0.0
    second_opinion: str = ""
    """What the LLM judge said where it is asked for the log only."""


class AnswerJudge(Protocol):
    """`judge.client.Judge`, or a fake."""

    async def judge(
        self, answer: str | None, gold: str | Sequence[str], *, question: str, prompt: str | None = None
    ) -> Verdict: ...


class UndecidedAnswer(EpisodeFailure):
    """Nobody could judge the answer: the episode is left out of the batch and counted, never scored 0.

    Args:
        reason: What happened.
        outage: Whether asking again later may help.
    """

    def __init__(self, reason: str, *, outage: bool = False) -> None:
        super().__init__(reason)
        self.outage = outage


class RewardFunction(Protocol):
    """One file's `reward`."""

    async def __call__(
        self, episode: Episode, item: RewardItem, judge: AnswerJudge, weights: RewardWeights = ...
    ) -> Reward: ...


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


async def decide(
    episode: Episode,
    item: RewardItem,
    judge: AnswerJudge,
    weights: RewardWeights,
    *,
    tags: Sequence[FormatRule] = ("think", "code"),
    max_answer_chars: int | None = None,
    accuracy_factor: float = 1.0,
    prompt: str | None = None,
    published_form: Callable[[str], str] | None = None,
) -> Reward:
    """Judge the episode's answer and put the parts of its reward together.

    Args:
        episode: That did not fail.
        item: What it is scored against.
        judge: Rules, and perhaps an LLM.
        weights: Of the recipe.
        tags: That must be balanced.
        max_answer_chars: An answer this long scores 0 without asking the judge; None is no limit.
        accuracy_factor: Of the accuracy term.
        prompt: Of judge/prompts; None is the judge's own.
        published_form: Applied to the answer under `compat`; an answer of which nothing is left is none.

    Raises:
        UndecidedAnswer: Nobody could tell, or the judge refuses every request.
    """
    texts, answer = (episode.replies, episode.answer) if not weights.compat else published_reading(episode)
    if answer is not None and max_answer_chars is not None and len(answer) >= max_answer_chars:
        return Reward(score=0.0, accuracy=0.0, format=0.0, decided_by="rule:too_long")
    well_formed = not format_errors(texts, tags=tags, first_answer_only=weights.compat)
    if weights.compat and published_form is not None and answer is not None:
        answer = published_form(answer) or None
    if answer is not None and not weights.compat and lists_candidates(answer, item.gold):
        verdict = Verdict(outcome=Outcome.INCORRECT, decided_by="rule:candidates", reason="the answer lists candidates")
    else:
        try:
            verdict = await judge.judge(answer, item.gold, question=item.question, prompt=prompt)
        except JudgeMisconfigured as error:
            raise UndecidedAnswer(str(error), outage=True) from error
    if verdict.correct is None:
        raise UndecidedAnswer(f"{item.item_id or item.data_source}: {verdict.reason}", outage=verdict.outage)
    correct = bool(verdict.correct)
    bonus = weights.tool_bonus if correct and episode.calls() > 0 else 0.0
    spent = weights.turn_cost * max(0, len(episode.turns) - 1) + weights.token_cost_per_1k * episode.num_tokens / 1000
    cost = spent if correct else 0.0
    return Reward(
        score=weights.accuracy * correct * accuracy_factor + weights.format * well_formed + bonus - cost,
        accuracy=float(correct),
        format=float(well_formed),
        decided_by=verdict.decided_by,
        bonus=bonus,
        cost=cost,
        second_opinion=verdict.second_opinion.value if verdict.second_opinion is not None else "",
    )


def published_reading(episode: Episode) -> tuple[list[str], str | None]:
    """(the whole response as one text, the first answer after the last `</think>`), as the published scorers read it.

    Source: DeepEyesV2 0373e6e, deepeyesv2.py:122-154: observations are part of the text that is counted.
    """
    parts = []
    for turn in episode.turns:
        parts.append(turn.reply.primer + turn.reply.text)
        if turn.observation is not None:
            parts.append(f"\nuser\n{turn.observation.text}\nassistant\n")
    text = "".join(parts)
    found = re.search(r"<answer>(.*?)</answer>", text.rpartition("</think>")[2], re.DOTALL)
    return [text], found[1].strip() if found is not None else None
