"""What becomes of a rollout: scored and recorded, or lost with its reason. Imports neither verl nor torch.

The agent loop fills in what it knows; the worker that called it records the rollout only when verl has taken its result, for
it may be lost after it was scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from agent.episode import UNFINISHED, Episode, Outage
from agent.messages import Message, escape
from agent.recorder import Recorder
from agent.records import RolloutFacts
from reinforcement_learning.rewards import Reward, RewardItem

_REASON_CHARS = 400


class EpisodeFailed(Exception):
    """An outage ended the episode; the message begins with its kind. verl trains on the rest of its group."""


class RolloutLost(Exception):
    """Raised to verl in place of what broke, which is recorded, tagged and announced already."""


@dataclass(slots=True)
class RolloutSoFar:
    """One rollout, as far as it has come."""

    episode: Episode | None = None
    item: RewardItem | None = None
    reward: Reward | None = None
    restarts: int = 0
    """Attempts before this one, which an outage of the sandbox ended."""


CURRENT: ContextVar[RolloutSoFar | None] = ContextVar("rollout", default=None)
"""The rollout that this asyncio task plays."""


def reason_of(error: BaseException) -> str:
    """`Kind: what happened`, on one line, at most 400 characters.

    A remote error of Ray holds the whole traceback of the other side; what happened stands in its last line.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else "no message"
    return (text if isinstance(error, EpisodeFailed) else f"{type(error).__name__}: {text}")[:_REASON_CHARS]


def kind_of(reason: str) -> str:
    """The kind of error at the beginning of a reason."""
    return reason.partition(":")[0]


class LossLog:
    """Tells of each kind of loss once a step, and how many there were when the next step begins.

    Args:
        announce: Is given the lines.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._step: int | None = None
        self._counts: Counter[str] = Counter()

    def add(self, step: int, reason: str, *, item_id: str) -> bool:
        """Count a loss; says whether it is the first of its kind in this step."""
        if step != self._step:
            self._sum_up()
            self._step = step
        kind = kind_of(reason)
        self._counts[kind] += 1
        if self._counts[kind] > 1:
            return False
        item = item_id or "?"
        self._announce(f"step {step}: a rollout of item {item} was lost, others of this kind are counted: {reason}")
        return True

    def _sum_up(self) -> None:
        several = {kind: count for kind, count in self._counts.items() if count > 1}
        if several:
            counts = ", ".join(f"{kind} {count}" for kind, count in sorted(several.items()))
            self._announce(f"step {self._step}: rollouts lost in this worker by kind: {counts}")
        self._counts.clear()


async def record(
    recorder: Recorder | None, rollout: RolloutSoFar, row: Mapping[str, Any], *, validation: bool, lost: str = ""
) -> None:
    """Record a rollout, also one of which no episode was made.

    Args:
        recorder: None records nothing.
        rollout: As far as it came.
        row: What verl was given.
        validation: Whether the rollout is of a validation.
        lost: Why it is not trained on; it is then recorded as failed and without a score.
    """
    if recorder is None:
        return
    episode = rollout.episode if rollout.episode is not None else Episode(opening=_opening(row))
    if lost and (not episode.failed or episode.end is UNFINISHED):
        # It was broken off, or played and perhaps scored, and lost on its way to the trainer.
        episode.end = Outage(reason=lost)
    await recorder.record(episode, _facts(rollout, row, validation=validation, scored=not lost))


def step_of(row: Mapping[str, Any]) -> int:
    """The training step that asked for a row's rollouts; -1 if that is not known."""
    return _whole(row.get("global_steps"), -1)


def _whole(value: Any, otherwise: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise


def item_of(row: Mapping[str, Any]) -> str:
    """The row's name in the data; empty if it has none."""
    return str(row.get("index", ""))


def _facts(rollout: RolloutSoFar, row: Mapping[str, Any], *, validation: bool, scored: bool) -> RolloutFacts:
    item, reward = rollout.item, rollout.reward if scored else None
    facts = RolloutFacts(
        item_id=item_of(row) if item is None else item.item_id,  # without it the row could not be read
        source=str(row.get("data_source", "")) if item is None else item.data_source,
        category="" if item is None else str(item.extra.get("kind", "")),
        gold="" if item is None else " or ".join(item.gold),
        sample=_whole(row.get("session_id"), 0),
        step=step_of(row),
        group=str(row.get("uid", "")),
        validation=validation,
        restarts=rollout.restarts,
        decided_by="nobody",
    )
    if reward is None:
        return facts
    return replace(
        facts,
        correct=reward.accuracy == 1.0,
        score=reward.accuracy,
        reward=reward.score,
        format=reward.format,
        bonus=reward.bonus,
        cost=reward.cost,
        decided_by=reward.decided_by,
        second_opinion=reward.second_opinion,
    )


def _opening(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """What can be told of the question, without its images."""
    said = row.get("raw_prompt")
    rows = said if isinstance(said, list | tuple) else []
    return tuple(Message("user", escape(str(one.get("content", "")))) for one in rows if isinstance(one, Mapping))


def share_out(num_prompts: int, num_workers: int, *, first: int) -> list[tuple[int, int]]:
    """(worker, its prompts) for each that gets any; none gets two more than another, and the surplus begins at `first`."""
    each, more = divmod(num_prompts, num_workers)
    turns = [((first + turn) % num_workers, each + (turn < more)) for turn in range(num_workers)]
    return [(worker, count) for worker, count in turns if count]
