"""Search: as perception, but an episode that called a search tool keeps 90 % of its accuracy term.

Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py, compute_score_search.
"""

from __future__ import annotations

from agent.episode import Episode
from agent.protocol import format_errors
from reinforcement_learning.rewards import MAX_ANSWER_CHARS, AnswerJudge, Reward, RewardWeights, Task, decide

_WEIGHTS = RewardWeights()


async def reward(episode: Episode, task: Task, judge: AnswerJudge) -> Reward:
    """Score one episode, in [0, 1]."""
    if episode.answer is not None and len(episode.answer) >= MAX_ANSWER_CHARS:
        return Reward(score=0.0, accuracy=0.0, format=0.0, decided_by="rule:too_long")
    well_formed = not format_errors(episode.replies, tags=("think", "code", "tool_call"))
    searched = any("<tool_call>" in reply for reply in episode.replies)
    verdict = await decide(episode, task, judge)
    kept_frac = 1.0 - _WEIGHTS.search_cost_frac if searched else 1.0
    score = _WEIGHTS.accuracy * bool(verdict.correct) * kept_frac + _WEIGHTS.format * well_formed
    return Reward(
        score=score, accuracy=float(bool(verdict.correct)), format=float(well_formed), decided_by=verdict.decided_by
    )
