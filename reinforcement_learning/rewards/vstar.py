"""Validation on V*: accuracy alone. Source: DeepEyesV2 0373e6e, compute_score_acc, which compares before it judges."""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import AnswerJudge, Reward, Task, decide


async def reward(episode: Episode, task: Task, judge: AnswerJudge) -> Reward:
    """Score one episode, 0 or 1."""
    verdict = await decide(episode, task, judge)
    correct = float(bool(verdict.correct))
    return Reward(score=correct, accuracy=correct, format=0.0, decided_by=verdict.decided_by)
