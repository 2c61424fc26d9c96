"""The sampler of a synchronous run: survivors are trained on, failed groups are replaced, a fault in all ends the run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from verl.trainer.ppo.v1 import replay_buffer

from reinforcement_learning.failed_groups import FailedGroups, GroupBook, RunEnded

LOST_TAG = "lost_"
"""A prompt's tags `lost_<session>` say `<kind of error>: <reason>` for each of its rollouts that was lost."""
_TRAIN = "train"
_DEFAULT_GEN_BATCHES = 20
"""Of the group filter when its own limit is not set: verl would go on for ever."""


class EpisodeBuffer(replay_buffer.ReplayBuffer):  # type: ignore[misc]
    """verl's synchronous buffer with our rules for groups of which rollouts were lost.

    Args:
        failed_groups: The rules.
        rollouts: Of each group.
        dropped: File to which a line is added for each group that is dropped: its rollouts that were scored are recorded as
            such, and this says that nobody was trained with them.
        max_gen_batches: Steps' worth of prompts that the group filter may use up for one step; 0 for the default.
        kwargs: verl's own; `sync_refill_failed_groups` and `gen_batch_size` follow from the rules.
    """

    def __init__(
        self, *, failed_groups: FailedGroups, rollouts: int, dropped: Path, max_gen_batches: int = 0, **kwargs: Any
    ) -> None:
        self._refill: Callable[[int], object] = kwargs.pop("refill_fn")
        super().__init__(**kwargs, refill_fn=self._draw_more, sync_refill_failed_groups=failed_groups.refill)
        self.book = GroupBook(failed_groups, rollouts)
        self._dropped, self._step = dropped, 0
        self._max_gen_batches = max_gen_batches if max_gen_batches > 0 else _DEFAULT_GEN_BATCHES
        self._drawn_more = 0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """The rollouts of `batch_size` groups, and the step's metrics, `episode/failed_frac` among them.

        Raises:
            RunEnded: Too many failed groups in a row, or nothing left to train on.
        """
        if partition_id != _TRAIN:
            batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
            if not batch.keys:
                raise RunEnded("every rollout of a validation batch was lost; the run's log has their errors")
            return batch, metrics
        self.book.begin_step()
        self._step = global_steps
        self._drawn_more = 0
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        return batch, metrics | self.book.metrics(trained=len({key.split("_")[0] for key in batch.keys}))

    def _draw_more(self, number: int) -> None:
        self._drawn_more += number
        limit = self._max_gen_batches * (self.train_batch_size or number)
        if self.filter_groups_metric is not None and self._drawn_more + (self.train_batch_size or 0) > limit:
            raise self.book.too_alike(self.filter_groups_metric, limit, self.train_batch_size or number)
        self.book.refilled += number
        self._refill(number)

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        sessions: dict[str, set[str]] = defaultdict(set)
        for key in self.partitions[_TRAIN]:
            uid, session, *_ = key.split("_")
            sessions[uid].add(session)
        failed, finished = self.failure_keys[_TRAIN], self.finished_keys[_TRAIN]
        self.book.drawn(self.prompt_global_steps[_TRAIN])
        new = [uid for uid in self.prompt_global_steps[_TRAIN] if uid in failed | finished and not self.book.is_settled(uid)]
        reasons = _reasons() if any(uid in failed for uid in new) else {}
        for uid in new:
            self.book.settle(uid, len(sessions[uid]), reasons.get(uid, ()))
            if len(sessions[uid]) < self.book.min_survivors:
                self._note_dropped(uid, len(sessions[uid]), reasons.get(uid, ()))
        # A group with enough survivors is like any other from here on, for verl's filter of groups as well.
        thin = {uid for uid in failed | finished if len(sessions[uid]) < self.book.min_survivors}
        self.finished_keys[_TRAIN] = (finished | failed) - thin
        self.failure_keys[_TRAIN] = thin
        if new:
            self.book.check()

    def _note_dropped(self, group: str, survivors: int, reasons: Sequence[str]) -> None:
        row = {"step": self._step, "group": group, "survivors": survivors, "reasons": list(reasons)}
        self._dropped.parent.mkdir(parents=True, exist_ok=True)
        with self._dropped.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        # Once only: TransferQueue knows nothing of groups that are gone.
        super()._clear_groups(partition_id, uids & set(self.prompt_global_steps[partition_id]))

    def _terminal_eviction_reasons(
        self, global_steps: int, partition_id: str
    ) -> tuple[set[str], set[str], set[str], Counter[float]]:
        stale, alike, failed, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        if partition_id == _TRAIN and self.sync_refill_failed_groups:
            failed = set(self.failure_keys[_TRAIN])
        return stale, alike, failed, counts

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict[str, Any]], dict[str, int]]:
        if partition_id != _TRAIN:
            return super()._select_prompt_uids(partition_id, sampleable_keys, batch_size)  # type: ignore[no-any-return]
        # Without refilling, failed groups count towards the step and are left out of what is trained on.
        good = sampleable_keys - self.failure_keys[_TRAIN]
        if not good:
            raise self.book.nothing_left()
        selected, tags, steps = super()._select_prompt_uids(partition_id, good, batch_size)
        thin = sampleable_keys & self.failure_keys[_TRAIN]
        self._clear_groups(_TRAIN, thin)
        gone = {key for key in tags if key.split("_")[0] in thin}
        return selected, {key: tag for key, tag in tags.items() if key not in gone}, steps


def _reasons() -> dict[str, list[str]]:
    """Prompt -> why its rollouts were lost."""
    prompts = (replay_buffer.tq.kv_list(_TRAIN) or {}).get(_TRAIN, {})
    return {
        uid: [str(reason) for name, reason in tag.items() if name.startswith(LOST_TAG)]
        for uid, tag in prompts.items()
        if tag.get("is_prompt", False)
    }
