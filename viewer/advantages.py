"""The advantages of a group's rollouts: as the trainer wrote them, else computed from rewards as the run's recipe asks for.

A record is written before its group's rewards are compared, and holds none. The trainer writes them step by step to
`advantages.jsonl`; runs of before and steps that were killed have none there. For GRPO rewards are all that is needed: see
reinforcement_learning/verl_adapter/advantages.py, which computes the same in 32 bits.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from agent.lines import bounded_lines

_EPSILON = 1e-6
_MOST_RECIPE_BYTES = 1 << 20
_FILE = "advantages.jsonl"
_STEP = re.compile(rb'\{"step": (-?\d+), ')


@dataclass(frozen=True, slots=True)
class AdvantageRule:
    """How a run's advantages follow from its rewards."""

    by_deviation: bool = True
    problem: str = ""
    """Why they cannot be computed; empty if they can."""

    @property
    def says(self) -> str:
        """What the page says of them."""
        if self.problem:
            return self.problem
        told = "computed here, for the trainer has written none: reward less the group's mean"
        if self.by_deviation:
            return f"{told}, divided by the group's deviation (of n − 1) + 0.000001, as GRPO has it"
        return f"{told}, not divided by the group's deviation (norm_adv_by_std_in_grpo is false)"


def advantage_rule(directory: Path) -> AdvantageRule:
    """The rule of a run's recipe.

    Args:
        directory: Of the records; the recipe lies there or above.
    """
    for folder in _folders(directory):
        recipe = folder / "recipe.resolved.yaml"
        try:
            if recipe.stat().st_size > _MOST_RECIPE_BYTES:
                continue
            algorithm = yaml.safe_load(recipe.read_text(encoding="utf-8"))["verl"]["algorithm"]
            estimator, in_reward = algorithm["adv_estimator"], algorithm.get("use_kl_in_reward", False)
            by_deviation = bool(algorithm.get("norm_adv_by_std_in_grpo", True))
        except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError):
            continue
        if estimator != "grpo":
            return AdvantageRule(problem=f"not known: the recipe's adv_estimator is {str(estimator)[:80]}, not grpo")
        if in_reward:
            return AdvantageRule(problem="not known: the recipe's use_kl_in_reward takes from rewards what no record has")
        return AdvantageRule(by_deviation)
    return AdvantageRule(problem="not known: there is no recipe.resolved.yaml of a training beside these records")


def recorded_advantages(directory: Path, step: int) -> dict[str, float] | None:
    """What the trainer wrote of a step: episode id -> advantage; None if it wrote nothing.

    Args:
        directory: Of the records; the file lies there or above.
        step: Of training.
    """
    for folder in _folders(directory):
        try:
            with (folder / _FILE).open("rb") as lines:
                for line in bounded_lines(lines):
                    found = None if line.text is None else _STEP.match(line.text)
                    if found is not None and line.text is not None and int(found[1]) == step:
                        told = json.loads(line.text)["advantages"]
                        return {str(name): float(value) for name, value in told.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # not there, or no such file
    return None


def _folders(directory: Path) -> Iterator[Path]:
    yield directory
    yield from directory.resolve().parents[:2]


def advantages(rewards: Sequence[float | None], *, by_deviation: bool) -> list[float | None]:
    """GRPO's advantages of a group.

    Args:
        rewards: [num_rollouts]; None for one that was lost and is compared with nothing.
        by_deviation: Whether they are divided by the group's deviation.

    Returns:
        [num_rollouts]; None for those that were lost. Rewards that differ by rounding only give 0, and so does one alone.
    """
    known = [reward for reward in rewards if reward is not None]
    if not known or max(known) - min(known) <= _EPSILON:
        return [None if reward is None else 0.0 for reward in rewards]
    mean = statistics.fmean(known)
    divisor = statistics.stdev(known) + _EPSILON if by_deviation else 1.0
    return [None if reward is None else (reward - mean) / divisor for reward in rewards]
