"""Perception: 0.8 accuracy + 0.2 format; an answer of 300 characters or more scores 0 without asking the judge.

Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py, compute_score.
"""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import MAX_ANSWER_CHARS, AnswerJudge, Reward, RewardItem, RewardWeights, decide

_PUBLISHED = RewardWeights()


async def reward(episode: Episode, item: RewardItem, judge: AnswerJudge, weights: RewardWeights = _PUBLISHED) -> Reward:
    """Score one episode, in [0, 1] with the published weights."""
    return await decide(episode, item, judge, weights, max_answer_chars=MAX_ANSWER_CHARS)
