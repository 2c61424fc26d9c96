"""Perception: 0.8 accuracy + 0.2 format; an answer of 300 characters or more scores 0 without asking the judge.

Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py, compute_score.
"""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import MAX_ANSWER_CHARS, AnswerJudge, Reward, Task, reason


async def reward(episode: Episode, task: Task, judge: AnswerJudge) -> Reward:
    """Score one episode, in [0, 1]."""
    if episode.answer is not None and len(episode.answer) >= MAX_ANSWER_CHARS:
        return Reward(score=0.0, accuracy=0.0, format=0.0, decided_by="rule:too_long")
    return await reason.reward(episode, task, judge)
