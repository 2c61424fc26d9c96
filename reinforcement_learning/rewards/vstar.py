"""Validation on V*: accuracy alone. Source: DeepEyesV2 0373e6e, compute_score_acc, which compares before it judges."""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import AnswerJudge, Reward, RewardItem, RewardWeights, decide

_PUBLISHED = RewardWeights()


async def reward(episode: Episode, item: RewardItem, judge: AnswerJudge, weights: RewardWeights = _PUBLISHED) -> Reward:
    """Score one episode, 0 or 1."""
    accuracy_alone = RewardWeights(accuracy=1.0, format=0.0, compat=weights.compat)
    return await decide(episode, item, judge, accuracy_alone)
