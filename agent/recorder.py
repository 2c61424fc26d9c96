"""Recording while others work: a thread of its own writes, and whoever has an episode to record awaits it.

Back-pressure, not loss: `record` returns when its line is written. A finished group is on disk before its step can end,
nothing needs to be flushed when a process is killed, and what waits is never more than the episodes under way. The event
loop is free meanwhile. Only a disk that fails, or takes longer than `patience_s` for one record, loses records: they are
counted and told of, and the rollout itself is not lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from agent.episode import Episode
from agent.record_images import IN_DATA, RecordImages
from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter

_log = logging.getLogger(__name__)


class RecordSettings(BaseModel):
    """`agent.record:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """False records nothing, not even what was lost; its reasons are still in the log and the metrics."""
    every: int = Field(1, ge=1)
    """Of so many training steps, one is recorded: those that it divides. Lost rollouts are recorded in every step."""
    share: float = Field(1.0, ge=0, le=1)
    """Of the groups of such a step; a group is recorded whole or not at all. Lost rollouts are recorded of every group."""
    max_pixels: int | None = Field(None, ge=1024)
    """Of an image, width times height; of a larger one a JPEG of at most so many is kept. None keeps every image as it is: a
    crop of 2 megapixels is a PNG of 3.4 MB."""
    images: str = IN_DATA
    """Where images that are new are kept: `data`, in the store (`deepeyes data prepare`) that the run's data lies in, if
    it does and can be written to; `run`, beside the records, with which they are deleted; or the folder of a store."""
    patience_s: float = Field(300.0, gt=0)
    """How long a rollout waits for its record to be written, in seconds; then it goes on, and the record may be lost."""


class Recorder:
    """One for each process that plays episodes.

    Args:
        directory: Shared by all of a run's processes; each has a file of its own there.
        settings: What is recorded.
        run_store: Of agent.record_images.RecordImages.
        store: Of the same.
        announce: Is told when records are lost, once a minute at most; a log entry by default.
    """

    def __init__(
        self,
        directory: Path,
        settings: RecordSettings,
        *,
        run_store: Path | None = None,
        store: Path | None = None,
        announce: Callable[[str], None] = _log.warning,
    ) -> None:
        images = RecordImages(
            directory, fanned=True, run_store=run_store, store=store, max_pixels=settings.max_pixels, say=announce
        )
        self._writer = TrajectoryWriter(directory, shared=True, images=images)
        self._directory, self._settings, self._announce = directory, settings, announce
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._late: Future[None] | None = None
        self._told_at = float("-inf")
        self.lost = 0
        """Records that could not be written."""

    def wants(self, *, step: int, group: str, lost: bool) -> bool:
        """Whether an episode is to be recorded.

        Args:
            step: Of training; a negative one is unknown and always wanted.
            group: Name of the prompt's group: all its rollouts get the same answer, in every process.
            lost: It has no score for an outage of ours.
        """
        if lost:
            return True
        if step > 0 and step % self._settings.every:
            return False
        drawn = int.from_bytes(hashlib.sha256(group.encode("utf-8", "replace")).digest()[:8], "big") / 2**64
        return drawn < self._settings.share

    async def record(self, episode: Episode, facts: RolloutFacts) -> bool:
        """Record an episode, if it is wanted, and return when it is on disk.

        Args:
            episode: As it ended.
            facts: Its step and group decide whether it is wanted.

        Returns:
            Whether it was written. A record that cannot be written is counted and announced, never raised.
        """
        step = -1 if facts.step is None else facts.step
        if not self.wants(step=step, group=facts.group, lost=episode.failed):
            return False
        if self._late is not None and not self._late.done():
            # The thread hangs in an earlier write; more would only pile up behind it.
            self._lose(f"the disk has not taken a record for {self._settings.patience_s:g} s")
            return False
        writing = self._thread.submit(self._writer.write, episode, facts)
        try:
            async with asyncio.timeout(self._settings.patience_s):
                await asyncio.shield(asyncio.wrap_future(writing))
        except TimeoutError as error:
            if writing.done():
                self._lose(f"{type(error).__name__}: {error}")
                return False
            self._late = writing
            self._lose(f"the disk has not taken a record for {self._settings.patience_s:g} s")
            return False
        except Exception as error:  # noqa: BLE001 - a rollout is worth more than its record
            self._lose(f"{type(error).__name__}: {error}")
            return False
        return True

    def _lose(self, reason: str) -> None:
        self.lost += 1
        if time.monotonic() - self._told_at > 60.0:
            self._told_at = time.monotonic()
            self._announce(f"{self.lost} rollouts are not recorded in {self._directory}; training goes on: {reason}")

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._thread.shutdown(wait=True)
