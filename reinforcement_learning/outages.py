"""What happens to finished rollouts while the judge is away.

A few undecided answers are left out of their step. When more than a set share of the last verdicts failed for want of a
judge, scoring waits instead: the episodes stay in memory, the step does not end, and training goes on by itself once the
judge is back. Nothing is scored 0, and no finished rollout is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from judge.client import JudgeMisconfigured
from reinforcement_learning.rewards import Reward, UndecidedAnswer

_log = logging.getLogger(__name__)


class OutageSettings(BaseModel):
    """`agent.judge_outage:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_share: float = Field(0.1, ge=0, le=1)
    """Of the last verdicts of a rollout worker; above it scoring waits."""
    window: int = Field(64, ge=1)
    """How many verdicts that share is of."""
    poll_s: float = Field(5.0, gt=0)
    """Between two looks whether the judge is back."""
    patience_s: float | None = Field(None, gt=0)
    """After so long the answers are left out after all; None waits for ever."""


class Pinged(Protocol):
    """A judge that can be looked after."""

    async def ping(self) -> None:
        """Raises: ConnectionError: it is not there."""
        ...


class ScoringGate:
    """One for each rollout worker; all its episodes pass through it.

    Args:
        judge: To see whether it is back.
        settings: When to wait, and how long.
        announce: Is told why training waits and when it goes on; a log entry by default.
    """

    def __init__(self, judge: Pinged, settings: OutageSettings, announce: Callable[[str], None] = _log.warning) -> None:
        self._judge = judge
        self._settings = settings
        self._announce = announce
        self._failed: deque[bool] = deque(maxlen=settings.window)
        self._back: asyncio.Task[bool] | None = None

    @property
    def share(self) -> float:
        """Of the last verdicts that failed for want of a judge; of the whole window, so that one failure is no outage."""
        return sum(self._failed) / self._settings.window

    async def score(self, attempt: Callable[[], Awaitable[Reward]]) -> Reward:
        """Score an episode, waiting for the judge if need be.

        Raises:
            UndecidedAnswer: To be left out: few answers are undecided, or the judge is not away, or patience is over.
        """
        while True:
            try:
                reward = await attempt()
            except UndecidedAnswer as error:
                if not error.outage:
                    raise
                self._failed.append(True)
                if self.share <= self._settings.max_share or not await self._wait(str(error)):
                    raise
            else:
                self._failed.append(False)
                return reward

    async def _wait(self, reason: str) -> bool:
        """Until the judge is back; False if patience is over. All waiting episodes share one look-out."""
        if self._back is None or self._back.done():
            self._announce(f"training waits for the judge, {100 * self.share:.0f} % of verdicts failed: {reason}")
            self._back = asyncio.create_task(self._look_out())
        return await asyncio.shield(self._back)

    async def _look_out(self) -> bool:
        began = time.monotonic()
        patience_s = self._settings.patience_s
        while patience_s is None or time.monotonic() - began < patience_s:
            await asyncio.sleep(self._settings.poll_s)
            try:
                await self._judge.ping()
            except (ConnectionError, JudgeMisconfigured):
                continue
            self._announce(f"the judge is back after {time.monotonic() - began:.0f} s; training goes on")
            self._failed.clear()
            return True
        self._announce(f"the judge was away for {time.monotonic() - began:.0f} s; its answers are left out")
        return False
