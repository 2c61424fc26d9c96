"""Intervals, paired tests and pass@k. Random numbers are seeded: a report made twice is the same."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.records import STRICT

_Z_95 = 1.959963984540054
_RESAMPLES = 2000


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share.

    Raises:
        ValueError: `n` is 0, or `successes` is not within it.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    share = successes / n
    centre = share + _Z_95**2 / (2 * n)
    spread = _Z_95 * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n**2))
    scale = 1 + _Z_95**2 / n
    # At the ends the formula misses 0 and 1 by a rounding error.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of values in [0, 1]: Wilson's for zeros and ones, else a bootstrap over items.

    Raises:
        ValueError: No values.
    """
    if all(value in (0.0, 1.0) for value in values):
        return wilson_interval(int(sum(values)), len(values))
    return bootstrap_interval(values)


def bootstrap_interval(values: Sequence[float], *, resamples: int = _RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean.

    Raises:
        ValueError: No values.

    Source: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if not values:
        raise ValueError("no values, no interval")
    import numpy as np

    draws = np.random.default_rng(seed)
    array = np.asarray(values, dtype=np.float64)
    means = np.array([array[draws.integers(0, len(array), len(array))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test, which asks whether two runs differ where just one of them is right.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
    (1947).
    """
    n = only_first + only_second
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def permutation_test(first: Sequence[float], second: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of a paired test by random sign flips, for scores with partial credit.

    Raises:
        ValueError: The lengths differ, or there is nothing.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not differences:
        raise ValueError("no pairs, no test")
    observed = abs(sum(differences))
    moving = [value for value in differences if value]
    draws = random.Random(seed)  # noqa: S311 - a test, not a secret
    hits = sum(
        abs(sum(value if draws.random() < 0.5 else -value for value in moving)) >= observed - 1e-12 for _ in range(resamples)
    )
    return (hits + 1) / (resamples + 1)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of k samples, drawn from n of which `correct` are right, is right.

    Raises:
        ValueError: k is more than n.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374, section 2.1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


class Counted(Protocol):
    """What is counted of an episode: the row of its score."""

    @property
    def item_id(self) -> str: ...
    @property
    def correct(self) -> bool | None: ...
    @property
    def score(self) -> float | None: ...
    @property
    def decided_by(self) -> str: ...
    @property
    def tool_calls(self) -> int: ...
    @property
    def tool_errors(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Totals of some episodes of a run; what was not evaluated is in no share and no mean."""

    __pydantic_config__ = STRICT

    items: int
    """Questions that they are of."""
    episodes: int
    """With several samples more than items."""
    evaluated: int
    """Episodes with a score."""
    not_evaluated: int
    correct: int
    """Evaluated episodes that are right."""
    accuracy: float | None
    """Mean over the items of the mean score of each one's evaluated episodes; None if nothing was evaluated."""
    accuracy_interval: tuple[float, float] | None
    """95 % interval of it."""
    by_judge: int
    unparsed: int
    """Episodes in which no answer could be read, counted wrong."""
    tool_rate: float | None
    """Share of the evaluated episodes that called a tool."""
    tool_calls_mean: float | None
    tool_errors: int


def totals(rows: Sequence[Counted]) -> Totals:
    """Count rows of any kind: how many, how many right with an interval, who decided, tool use."""
    by_item: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.score is not None:
            by_item[row.item_id].append(row.score)
    evaluated = [row for row in rows if row.score is not None]
    n = len(evaluated)
    means = [sum(values) / len(values) for values in by_item.values()]
    return Totals(
        items=len({row.item_id for row in rows}),
        episodes=len(rows),
        evaluated=n,
        not_evaluated=len(rows) - n,
        correct=sum(bool(row.correct) for row in evaluated),
        accuracy=sum(means) / len(means) if means else None,
        accuracy_interval=mean_interval(means) if means else None,
        by_judge=sum(row.decided_by.startswith("judge:") for row in evaluated),
        unparsed=sum(row.decided_by in ("rule:unparsed", "judge:unreadable", "random") for row in evaluated),
        tool_rate=sum(row.tool_calls > 0 for row in evaluated) / n if n else None,
        tool_calls_mean=sum(row.tool_calls for row in evaluated) / n if n else None,
        tool_errors=sum(row.tool_errors for row in evaluated),
    )
