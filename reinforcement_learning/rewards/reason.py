"""Mathematics and reasoning: 0.8 accuracy + 0.2 format. Source: DeepEyesV2 0373e6e, compute_score_math."""

from __future__ import annotations

from agent.episode import Episode
from agent.protocol import format_errors
from reinforcement_learning.rewards import AnswerJudge, Reward, RewardWeights, Task, decide

_WEIGHTS = RewardWeights()


async def reward(episode: Episode, task: Task, judge: AnswerJudge) -> Reward:
    """Score one episode, in [0, 1]."""
    well_formed = not format_errors(episode.replies)
    verdict = await decide(episode, task, judge)
    score = _WEIGHTS.accuracy * bool(verdict.correct) + _WEIGHTS.format * well_formed
    return Reward(
        score=score, accuracy=float(bool(verdict.correct)), format=float(well_formed), decided_by=verdict.decided_by
    )
