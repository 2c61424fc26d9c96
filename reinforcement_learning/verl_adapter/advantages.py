"""GRPO's advantage for groups of which rollouts may be missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from verl.trainer.ppo.core_algos import register_adv_est

NAME = "grpo_survivors"
_EPSILON = 1e-6


@register_adv_est(NAME)  # type: ignore[untyped-decorator]
def survivors_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Sequence[Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The advantages of verl's `grpo`, except where that goes by rounding errors or compares a rollout with nothing.

    Equal rewards give exactly 0: the mean of sixteen rewards of 0.8 is not 0.8 in 32 bits, and verl divides the difference
    by a deviation of nearly 0 (core_algos.py, compute_grpo_outcome_advantage of verl 0.9.1, gives -0.056). A rollout that
    is alone in its group gets 0; verl gives it its raw reward.

    Args:
        token_level_rewards: [num_rollouts, num_tokens].
        response_mask: [num_rollouts, num_tokens], 1 where the model sampled.
        index: The group of each rollout.
        config: verl's `algorithm`; `norm_adv_by_std_in_grpo` is read.

    Returns:
        (advantages, returns), the same tensor [num_rollouts, num_tokens].
    """
    by_deviation = bool(config.get("norm_adv_by_std_in_grpo", True)) if config is not None else True
    scores = token_level_rewards.sum(dim=-1)
    groups: dict[Any, list[int]] = defaultdict(list)
    for row, group in enumerate(index):
        groups[group].append(row)
    advantages = torch.zeros_like(scores)
    for rows in groups.values():
        group_scores = scores[rows]
        # Differences that rounding can make are none; a group of one has none either.
        if float(group_scores.max() - group_scores.min()) <= _EPSILON:
            continue
        centred = group_scores - group_scores.mean()
        advantages[rows] = centred / (group_scores.std() + _EPSILON) if by_deviation else centred
    spread = advantages.unsqueeze(-1) * response_mask
    return spread, spread
