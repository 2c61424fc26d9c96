"""Mathematics and reasoning: 0.8 accuracy + 0.2 format. The judge is asked for equivalence.

Source: DeepEyesV2 0373e6e, compute_score_math.
"""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import AnswerJudge, Reward, RewardWeights, Task, decide

_PUBLISHED = RewardWeights()


async def reward(episode: Episode, task: Task, judge: AnswerJudge, weights: RewardWeights = _PUBLISHED) -> Reward:
    """Score one episode, in [0, 1] with the published weights."""
    return await decide(episode, task, judge, weights, prompt="equivalence")
