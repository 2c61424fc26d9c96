"""Synthetic families: as perception; a use of tools costs what the recipe says."""

from reinforcement_learning.rewards.perception import reward

__all__ = ["reward"]
