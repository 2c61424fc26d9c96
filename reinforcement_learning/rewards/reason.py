"""Mathematics and reasoning: 0.8 accuracy + 0.2 format. The judge is asked for equivalence; under `compat` it is shown the
answer in the published form.

Source: DeepEyesV2 0373e6e, compute_score_math.
"""

from __future__ import annotations

from agent.episode import Episode
from reinforcement_learning.rewards import AnswerJudge, Reward, RewardItem, RewardWeights, decide
from reinforcement_learning.rewards._published_maths import published_form

_PUBLISHED = RewardWeights()


async def reward(episode: Episode, item: RewardItem, judge: AnswerJudge, weights: RewardWeights = _PUBLISHED) -> Reward:
    """Score one episode, in [0, 1] with the published weights."""
    return await decide(episode, item, judge, weights, prompt="equivalence", published_form=published_form)
