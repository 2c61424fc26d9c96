"""Search: as perception, but an episode that called a search tool keeps 90 % of its accuracy term.

Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py, compute_score_search.
"""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import (
    MAX_ANSWER_CHARS,
    AnswerJudge,
    Reward,
    RewardItem,
    RewardWeights,
    decide,
    published_reading,
)

_PUBLISHED = RewardWeights()


async def reward(episode: Episode, item: RewardItem, judge: AnswerJudge, weights: RewardWeights = _PUBLISHED) -> Reward:
    """Score one episode, in [0, 1] with the published weights."""
    texts = published_reading(episode)[0] if weights.compat else episode.replies
    searched = any("<tool_call>" in text for text in texts)
    return await decide(
        episode,
        item,
        judge,
        weights,
        tags=("think", "code", "tool_call"),
        max_answer_chars=MAX_ANSWER_CHARS,
        accuracy_factor=1.0 - weights.search_cost_frac if searched else 1.0,
    )
