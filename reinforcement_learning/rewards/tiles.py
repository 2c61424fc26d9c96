"""The toy task: as perception."""

from reinforcement_learning.rewards.perception import reward

__all__ = ["reward"]
