"""What in a run's metrics says that it goes wrong. Nothing is stopped: a person is told, and `alarm/<name>` is 1.

Each alarm is a function of the lines of `metrics.jsonl` so far. It looks at the last steps beside the first ones, so that it
needs no level that would be right for every model, and says nothing where a metric is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

History = Sequence[Mapping[str, float]]
"""Lines of steps, oldest first."""
LINES = 40
"""So many of the newest lines are looked at, and the first few."""
_FEW = 3
_MEMORY_STEPS = 20


def tool_use_gone(history: History) -> str:
    """Tools were used and no longer are: the model has found that guessing pays as well, or that calls cost."""
    used = _ends(history, "episode/tool_used/mean")
    if used is None or used.best < 0.2 or used.last > 0.02:
        return ""
    return f"tools were used in {used.best:.0%} of episodes, and in {used.last:.1%} of the last steps'"


def entropy_collapse(history: History) -> str:
    """The policy always writes the same while its answers are still wrong: nothing is tried that could be learned from."""
    entropy, right = _ends(history, "actor/entropy"), _ends(history, "episode/acc/mean")
    if entropy is None or right is None or right.last > 0.8 or entropy.last > 0.1 * entropy.first:
        return ""
    return f"the entropy fell from {entropy.first:.3g} to {entropy.last:.3g} while {right.last:.0%} of answers are right"


def equal_groups(history: History) -> str:
    """Hardly a group has rewards that differ, and not because all are right: rewards are broken, or the data too hard."""
    equal, right = _ends(history, "group/zero_variance_frac"), _ends(history, "group/all_right_frac")
    if equal is None or right is None or equal.last < 0.9 or right.last > 0.5:
        return ""
    return f"{equal.last:.0%} of groups have equal rewards, {right.last:.0%} because all is right: they teach nothing"


def drift(history: History) -> str:
    """vLLM and the trainer are not the same model: what is sampled is not what is trained on."""
    alike = _ends(history, "training/rollout_actor_probs_pearson_corr")
    if alike is None or alike.last >= 0.98:
        return ""
    return f"rollouts and trainer agree to {alike.last:.4f} only (training/rollout_actor_probs_pearson_corr, wanted 0.99)"


def reply_flood(history: History) -> str:
    """Replies get longer and run into their limits."""
    tokens, cut = _ends(history, "episode/model_tokens/mean"), _ends(history, "episode/truncated_frac")
    if tokens is None or cut is None or tokens.last < 1.5 * tokens.first or cut.last < max(0.3, cut.first + 0.1):
        return ""
    return f"an episode has {tokens.last:.0f} tokens instead of {tokens.first:.0f}; limits end {cut.last:.0%} of episodes"


def failures_rise(history: History) -> str:
    """More and more rollouts are lost to outages and faults of ours."""
    lost = _ends(history, "episode/failed_frac")
    if lost is None or lost.last < 0.02 or lost.last < 2 * lost.first:
        return ""
    return f"{lost.last:.1%} of rollouts are lost, {lost.first:.1%} at first (episode/lost_<kind>_frac says to what)"


def memory_grows(history: History) -> str:
    """The machine's memory fills, step after step, until something is killed."""
    used = [line["actor/perf/cpu_memory_used_gb"] for line in history if "actor/perf/cpu_memory_used_gb" in line]
    used = used[-_MEMORY_STEPS:]
    if len(used) < _MEMORY_STEPS:
        return ""
    rises = sum(after > before for before, after in pairwise(used)) / (len(used) - 1)
    grown = used[-1] - used[0]
    if rises < 0.8 or grown < max(2.0, 0.15 * used[0]):
        return ""
    return f"the machine's memory grew from {used[0]:.1f} to {used[-1]:.1f} GB in {len(used)} steps, nearly at each"


ALARMS: Mapping[str, Callable[[History], str]] = {
    check.__name__: check
    for check in (tool_use_gone, entropy_collapse, equal_groups, drift, reply_flood, failures_rise, memory_grows)
}
"""Name -> what is wrong, in one line, or nothing."""


class Watch:
    """Looks at each step of a run and tells of an alarm when it begins.

    Args:
        history: Lines of steps that were made before, oldest first.
        announce: Is told once for each time that an alarm begins.
    """

    def __init__(self, history: History, announce: Callable[[str], None]) -> None:
        self._first = list(history[:_FEW])
        self._newest = list(history[_FEW:])[-LINES:]
        self._announce = announce
        self._on = {name for name, check in ALARMS.items() if check(self._lines)}

    @property
    def _lines(self) -> list[Mapping[str, float]]:
        return [*self._first, *self._newest]

    def look(self, line: Mapping[str, float]) -> dict[str, float]:
        """`alarm/<name>` of a step, 1 or 0.

        Args:
            line: The step's other metrics.
        """
        if len(self._first) < _FEW:
            self._first.append(line)
        else:
            self._newest = [*self._newest, line][-LINES:]
        found = {name: check(self._lines) for name, check in ALARMS.items()}
        for name, said in found.items():
            if said and name not in self._on:
                self._announce(f"alarm {name}: {said}")
        self._on = {name for name, said in found.items() if said}
        return {f"alarm/{name}": float(bool(said)) for name, said in found.items()}


class _Ends:
    """A metric's mean over the first few steps, over the last few, and over the best few in a row."""

    def __init__(self, values: Sequence[float]) -> None:
        runs = [fmean(values[begin : begin + _FEW]) for begin in range(len(values) - _FEW + 1)]
        self.first, self.last, self.best = runs[0], runs[-1], max(runs)


def _ends(history: History, name: str) -> _Ends | None:
    """None where there are too few steps to speak of a first and a last."""
    values = [line[name] for line in history if name in line]
    return _Ends(values) if len(values) >= 2 * _FEW else None
