"""What happens to rollouts while the judge or the sandboxes are away: training waits, says so, and goes on by itself.

The judge: a few undecided answers are left out of their step. When more than a set share of the last verdicts failed for
want of a judge, scoring waits instead: the episodes stay in memory and the step does not end. Nothing is scored 0, and no
finished rollout is lost.

The sandbox: its client already asks the other servers, and a session whose server died is made again on one of them out of
Redis. An episode that lost its session all the same, or got none, is played again from its opening, freshly sampled, as soon
as a server has room. Nothing of the broken attempt is scored or trained on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.episode import Episode
from agent.errors import SandboxAway
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


class SandboxOutageSettings(BaseModel):
    """`agent.sandbox_outage:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_restarts: int = Field(8, ge=0)
    """Of one rollout, each in a new session; after that it is left out. An outage of all servers costs it one."""
    poll_s: float = Field(5.0, gt=0)
    """Between two looks whether a server is back."""
    patience_s: float | None = Field(None, gt=0)
    """After so long the rollouts that wait are left out after all; None waits for ever."""
    repeated: Literal["left_out", "scored_0"] = "left_out"
    """What becomes of a rollout that has used up its restarts while others of its worker were finished, so that its item or
    its own programs may be what ends the sandbox. It is called by name either way. `scored_0`: it is trained on with reward
    0, so that a program which takes the sandbox away is nothing to be learned."""


class Pinged(Protocol):
    """A judge that can be looked after."""

    async def ping(self) -> None:
        """Raises: ConnectionError: it is not there."""
        ...


class SandboxState(Protocol):
    """What a sandbox server says of itself; see code_sandbox.wire.Health."""

    @property
    def sessions(self) -> int: ...

    @property
    def max_sessions(self) -> int: ...

    @property
    def status(self) -> str: ...


class Sandboxes(Protocol):
    """Servers that can be looked after."""

    @property
    def num_waiting(self) -> int:
        """Requests that no server has taken yet."""
        ...

    async def available(self) -> Sequence[SandboxState]:
        """Those that answer."""
        ...


class _LookOut:
    """Waits until something is back; all who wait share one look-out.

    Args:
        what: Its name in what is announced.
        problem: Why it cannot be used now; empty if it can.
        poll_s: Between two looks.
        patience_s: None is for ever.
        announce: Is told at the beginning and at the end.
    """

    def __init__(
        self,
        what: str,
        problem: Callable[[], Awaitable[str]],
        *,
        poll_s: float,
        patience_s: float | None,
        announce: Callable[[str], None],
    ) -> None:
        self._what, self._problem, self._announce = what, problem, announce
        self._poll_s, self._patience_s = poll_s, patience_s
        self._back: asyncio.Task[bool] | None = None

    async def wait(self, reason: str) -> bool:
        """Until it is back; False if patience is over."""
        if self._back is None or self._back.done():
            self._announce(f"training waits for the {self._what}{reason}")
            self._back = asyncio.create_task(self._look_out())
        return await asyncio.shield(self._back)

    async def _look_out(self) -> bool:
        began = time.monotonic()
        told_at = began
        while self._patience_s is None or time.monotonic() - began < self._patience_s:
            await asyncio.sleep(self._poll_s)
            problem = await self._problem()
            if not problem:
                self._announce(f"the {self._what} is back after {time.monotonic() - began:.0f} s; training goes on")
                return True
            if time.monotonic() - told_at > _SAY_AGAIN_S:
                told_at = time.monotonic()
                self._announce(f"training still waits for the {self._what}, {told_at - began:.0f} s by now: {problem}")
        waited_s = time.monotonic() - began
        self._announce(f"the {self._what} was away for {waited_s:.0f} s; rollouts that need it are left out")
        return False


_SAY_AGAIN_S = 300.0
_SAID = {"left_out": "left out", "scored_0": "scored 0"}
_NOBODY = "no server answers; start one with `deepeyes sandbox serve`"


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
        self._failed: deque[bool] = deque(maxlen=settings.window)
        self._look_out = _LookOut(
            "judge", self._problem, poll_s=settings.poll_s, patience_s=settings.patience_s, announce=announce
        )

    @property
    def share(self) -> float:
        """The share of the window's verdicts that failed for want of a judge; one failure is thus no outage."""
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
                reason = f", {100 * self.share:.0f} % of verdicts failed: {error}"
                if self.share <= self._settings.max_share or not await self._look_out.wait(reason):
                    raise
            else:
                self._failed.append(False)
                return reward

    async def _problem(self) -> str:
        try:
            await self._judge.ping()
        except (ConnectionError, JudgeMisconfigured) as error:
            return str(error)
        self._failed.clear()
        return ""


class SandboxGate:
    """One for each rollout worker; its episodes are played through it.

    Args:
        sandboxes: To see whether one has room; None if no tool needs any.
        settings: How often an episode is played again, and how long is waited.
        announce: As for `ScoringGate`.
    """

    def __init__(
        self,
        sandboxes: Sandboxes | None,
        settings: SandboxOutageSettings,
        announce: Callable[[str], None] = _log.warning,
    ) -> None:
        self._sandboxes = sandboxes
        self._settings = settings
        self._announce = announce
        self._look_out = _LookOut(
            "sandbox", self._problem, poll_s=settings.poll_s, patience_s=settings.patience_s, announce=announce
        )
        self._playing = self._finished = 0
        self._watching: asyncio.Task[None] | None = None

    async def play(self, attempt: Callable[[], Awaitable[Episode]], *, item_id: str = "") -> Played:
        """Play an episode, again and in a new session if the sandbox took it away.

        Args:
            attempt: Plays it from its opening.
            item_id: Its name, where an outage follows it.

        Returns:
            The last attempt; it is failed if patience or restarts are used up, or if something else broke.
        """
        self._playing += 1
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            return await self._play(attempt, item_id)
        finally:
            self._playing -= 1

    async def _watch(self) -> None:
        """Says that all servers are away while their client still hopes for them, not only when it gives up."""
        while self._playing:
            await asyncio.sleep(self._settings.poll_s)
            if self._sandboxes is not None and self._sandboxes.num_waiting and not await self._sandboxes.available():
                await self._look_out.wait(f": {_NOBODY}")

    async def _play(self, attempt: Callable[[], Awaitable[Episode]], item_id: str) -> Played:
        restarts, waited_s, finished_before = 0, 0.0, self._finished
        while True:
            episode = await attempt()
            error = None if episode.outage is None else episode.outage.error
            if not isinstance(error, SandboxAway):
                self._finished += 1
                return Played(episode, restarts, waited_s)
            if restarts >= self._settings.max_restarts:
                others = self._finished - finished_before
                if others:
                    self._announce(
                        f"item {item_id or '?'}: the sandbox was lost under its rollout {restarts + 1} times while {others} "
                        f"others were finished; by agent.sandbox_outage.repeated it is {_SAID[self._settings.repeated]}. "
                        f"The last time: {episode.failure}"
                    )
                return Played(episode, restarts, waited_s, repeated_outage=others > 0)
            began = time.monotonic()
            problem = await self._problem()
            back = not problem or await self._look_out.wait(f": {problem}; the last it said: {episode.failure}")
            waited_s += time.monotonic() - began
            if not back:
                return Played(episode, restarts, waited_s)
            restarts += 1

    async def _problem(self) -> str:
        states = [] if self._sandboxes is None else await self._sandboxes.available()
        if not states:
            return _NOBODY
        if not any(state.status == "ok" and state.sessions < state.max_sessions for state in states):
            places = ", ".join(f"{state.sessions} of {state.max_sessions} sessions, {state.status}" for state in states)
            return f"no server has room ({places}); raise --max-sessions or lower agent.max_in_flight.python"
        return ""


@dataclass(frozen=True, slots=True)
class Played:
    """An episode with what it took."""

    episode: Episode
    restarts: int
    """Attempts before it that the sandbox ended."""
    waited_s: float
    """For a sandbox, between attempts."""
    repeated_outage: bool = False
    """Whether the sandbox was lost under every attempt while other rollouts were finished."""

    def reward_in_spite(self, settings: SandboxOutageSettings) -> Reward | None:
        """What it is trained with although an outage ended it; None if it is left out."""
        if not self.repeated_outage or settings.repeated == "left_out":
            return None
        return Reward(score=0.0, accuracy=0.0, format=0.0, decided_by="rule:repeated_outage")
