"""What becomes of groups of rollouts of which some were lost, and when that ends the run.

A group is the rollouts of one prompt. Those that survive are trained on. A group with too few survivors is dropped and, if
wished, a fresh prompt is drawn in its place. A fault that hits every episode must not draw prompts for ever: after a set
number of failed groups in a row the run ends with the reasons.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

_MAX_REASON_CHARS = 300
_REASONS_TOLD = 5


class RunEnded(RuntimeError):
    """The run cannot go on. The message is for the person who watches it, and is all they need."""


class FailedGroups(BaseModel):
    """`agent.failed_groups:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refill: bool = True
    """Draw a fresh prompt for each group that is dropped; else the step is smaller, and verl pads it."""
    min_survivors: int = Field(2, ge=1)
    """A group with fewer is dropped: one rollout alone has nothing to be compared with."""
    max_in_a_row: int = Field(32, ge=1)
    """So many dropped groups without a good one in between, in the order in which they were drawn, end the run."""


@dataclass(slots=True)
class _Group:
    failed: bool | None = None
    """None while its rollouts are being made."""
    reasons: tuple[str, ...] = ()


class GroupBook:
    """Counts the groups of a run, step by step.

    Args:
        settings: When a group counts as failed, and when the run ends.
        rollouts: Asked for in each group.
    """

    def __init__(self, settings: FailedGroups, rollouts: int) -> None:
        self._settings = settings
        self._rollouts = rollouts
        # In the order in which they were drawn, which has nothing to do with how fast a group fails.
        self._groups: dict[str, _Group] = {}
        self._asked: set[str] = set()
        self._lost = self._dropped = 0
        self._kinds: Counter[str] = Counter()
        self.refilled = 0

    @property
    def min_survivors(self) -> int:
        """The number that is set, but never more than there are rollouts in a group."""
        return min(self._settings.min_survivors, self._rollouts)

    def begin_step(self) -> None:
        """Forget the last step, except for the failed groups at its end: a row of them may go on."""
        names = list(self._groups)
        kept = len(names)
        while kept and self._groups[names[kept - 1]].failed:
            kept -= 1
        for name in names[:kept]:
            del self._groups[name]
        self._asked = set()
        self._lost = self._dropped = self.refilled = 0
        self._kinds = Counter()

    def drawn(self, names: Iterable[str]) -> None:
        """Groups whose rollouts were begun, in the order of drawing; those known already are left as they are."""
        for name in names:
            if name not in self._groups:
                self._groups[name] = _Group()
                self._asked.add(name)

    def is_settled(self, name: str) -> bool:
        """Whether it is known how the group ended."""
        return name in self._groups and self._groups[name].failed is not None

    def settle(self, name: str, survivors: int, reasons: Sequence[str]) -> None:
        """A group has ended.

        Args:
            name: Of the group.
            survivors: Rollouts that can be trained on.
            reasons: Of those that cannot, as `<kind>: <text>`.
        """
        self.drawn([name])
        group = self._groups[name]
        group.failed = survivors < self.min_survivors
        lost = max(self._rollouts - survivors, 0)
        known = [reason[:_MAX_REASON_CHARS] for reason in reasons][:lost]
        group.reasons = (*known, *["Unknown: the rollout's worker told no reason"] * (lost - len(known)))
        self._lost += lost
        self._dropped += group.failed
        self._kinds.update(_kind(reason) for reason in group.reasons)

    def check(self) -> None:
        """Raises: RunEnded: Too many failed groups in a row."""
        row: list[_Group] = []
        for group in self._groups.values():
            row = [*row, group] if group.failed else []
            if len(row) >= self._settings.max_in_a_row:
                raise RunEnded(
                    f"{len(row)} groups in a row had fewer than {self.min_survivors} of {self._rollouts} rollouts left "
                    f"(agent.failed_groups.max_in_a_row). {self._explain(row)}"
                )

    def nothing_left(self) -> RunEnded:
        """The error for a step in which no group can be trained on."""
        failed = [group for group in self._groups.values() if group.failed]
        return RunEnded(
            f"no group of this step has {self.min_survivors} of {self._rollouts} rollouts left. {self._explain(failed)}"
        )

    def too_alike(self, metric: str, groups: int, wanted: int) -> RunEnded:
        """The error for a step whose groups the filter removes one after the other."""
        failed = [group for group in self._groups.values() if group.failed]
        lost = f" {self._explain(failed)}" if failed else ""
        return RunEnded(
            f"{groups} prompts gave fewer than the {wanted} groups of a step whose rollouts differ in `{metric}` "
            "(algorithm.filter_groups): the data is too easy or too hard for the model, or its rewards are broken. Look at "
            f"the recorded rollouts, mix in other data, or raise algorithm.filter_groups.max_num_gen_batches.{lost}"
        )

    def metrics(self, *, trained: int) -> dict[str, float]:
        """`episode/*` of this step; fractions are of all that was asked for, refills included.

        Args:
            trained: Groups that the step is trained on.
        """
        asked = max(len(self._asked) * self._rollouts, 1)
        found = {
            "episode/failed_frac": self._lost / asked,
            "episode/lost": float(self._lost),
            "episode/dropped_groups": float(self._dropped),
            "episode/refilled_groups": float(self.refilled),
            "episode/evicted_frac": max(0.0, 1 - trained / max(len(self._asked), 1)),
        }
        return found | {f"episode/lost_{kind}_frac": number / asked for kind, number in self._kinds.items()}

    def _explain(self, groups: Sequence[_Group]) -> str:
        reasons = [reason for group in groups for reason in group.reasons]
        kinds = Counter(_kind(reason) for reason in reasons)
        told = []
        for kind, number in kinds.most_common(_REASONS_TOLD):
            example = next(reason for reason in reasons if _kind(reason) == kind)
            told.append(f"{number} x {' '.join(example.split())}")
        return (
            f"{len(reasons)} of {len(groups) * self._rollouts} rollouts were lost: {'; '.join(told)}. Mend the cause and "
            "start again: the run goes on from its newest checkpoint"
        )


def _kind(reason: str) -> str:
    """The type of the error before the colon, as a part of a metric's name."""
    return re.sub(r"\W+", "_", reason.partition(":")[0].strip())[:60] or "Unknown"
