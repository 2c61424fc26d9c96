"""Which of several servers is asked next, and how many requests are under way: least loaded first, broken ones last."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from serving.retries import BROKEN, RETRIED, TOO_MUCH

_FAILURES_TO_OPEN = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_SHRINK_FRAC = 0.7
_REFUSALS_LOOKED_AT = 16
_REFUSALS_BORNE_FRAC = 0.25


class NoServer(Exception):
    """All servers have been broken for too long."""


@dataclass(slots=True)
class Server:
    """One server, as far as we know it."""

    url: str
    in_flight: int = 0
    failures: int = 0
    """In a row."""
    pause_s: float = 0.0
    closed_until: float = 0.0
    """Monotonic time until which nothing is sent; then one request tries it."""

    def succeeded(self) -> None:
        """It answered: all is forgotten."""
        self.failures, self.pause_s, self.closed_until = 0, 0.0, 0.0

    def failed(self) -> None:
        """It did not answer; after three times in a row it is left alone, each time for longer."""
        self.failures += 1
        if self.failures >= _FAILURES_TO_OPEN:
            self.pause_s = min(max(_FIRST_PAUSE_S, 2 * self.pause_s), _LONGEST_PAUSE_S)
            self.closed_until = time.monotonic() + self.pause_s


class Servers:
    """All servers of one model.

    Args:
        urls: At least one.
        max_in_flight: Requests under way at most; fewer while more than a quarter is refused as too much. Single refusals
            happen to healthy servers and are only sent again: halving for each of them would stop all work.
        what: Their name in errors.
    """

    def __init__(self, urls: Sequence[str], *, max_in_flight: int, what: str = "server") -> None:
        self.all = [Server(url.rstrip("/")) for url in urls]
        self._what = what
        self._most = float(max_in_flight)
        self._limit = float(max_in_flight)
        self._in_flight = 0
        self._last_success = 0.0
        self._refusals: deque[bool] = deque(maxlen=_REFUSALS_LOOKED_AT)
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def slot(self, *, patience_s: float) -> AsyncIterator[Server]:
        """Wait for room, and give the least loaded server that is not left alone.

        Args:
            patience_s: How long to wait while no server answers anybody; waiting behind others has no bound.

        Raises:
            NoServer: Patience is over.
        """
        asked = time.monotonic()
        while (server := self._free()) is None:
            if self.all_broken and time.monotonic() - max(asked, self._last_success) > patience_s:
                raise NoServer(f"no {self._what} answered for {patience_s:g} s")
            await self._wait(patience_s)
        server.in_flight += 1
        self._in_flight += 1
        try:
            yield server
        finally:
            server.in_flight -= 1
            self._in_flight -= 1
            self._wake()

    async def _wait(self, patience_s: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        # With room, only servers that are left alone are missing; the end of a pause is announced by nobody.
        pause_s = None
        if self.all_broken:
            pause_s = min(patience_s, max(0.01, min(one.closed_until for one in self.all) - time.monotonic()))
        try:
            await asyncio.wait([turn], timeout=pause_s)
        finally:
            if not turn.done():
                turn.cancel()
            elif asyncio.current_task() is not None and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                self._wake()  # this turn was given to a task that will not take it

    def _wake(self) -> None:
        """Let as many waiters try again as there is room for."""
        room = self.limit - self._in_flight
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def _free(self) -> Server | None:
        if self._in_flight >= self.limit:
            return None
        now = time.monotonic()
        # A server that was left alone is tried with one request before it gets more.
        open_ = [
            one for one in self.all if one.closed_until <= now and not (one.failures >= _FAILURES_TO_OPEN and one.in_flight)
        ]
        return min(open_, key=lambda one: (one.failures > 0, one.in_flight), default=None)

    @property
    def all_broken(self) -> bool:
        """Whether every server failed several times in a row."""
        return all(one.failures >= _FAILURES_TO_OPEN for one in self.all)

    def answered(self, server: Server, status: int) -> bool:
        """Take note of an answer's HTTP status.

        Returns:
            Whether the server is well: it was neither broken nor asked too much. What it was asked may still be wrong.
        """
        if status in TOO_MUCH:
            self.refused()
        if status in BROKEN:
            server.failed()
        well = status not in RETRIED
        if well:
            self.succeeded(server)
        return well

    def did_not_answer(self, server: Server, error: httpx.TransportError) -> None:
        """Take note that there was no answer; one that did not come in time may mean that it was asked too much."""
        server.failed()
        if isinstance(error, httpx.TimeoutException):
            self.refused()

    def succeeded(self, server: Server) -> None:
        """A request went well: one more at a time, after as many as are under way went well."""
        server.succeeded()
        self._last_success = time.monotonic()
        self._refusals.append(False)
        self._limit = min(self._most, self._limit + 1 / self._limit)

    def refused(self) -> None:
        """A server said that it is too much, or did not answer in time."""
        self._refusals.append(True)
        looked_at = len(self._refusals)
        if looked_at == _REFUSALS_LOOKED_AT and sum(self._refusals) > _REFUSALS_BORNE_FRAC * looked_at:
            self._limit = max(1.0, _SHRINK_FRAC * self._limit)
            self._refusals.clear()  # the next look is at what the smaller number gives
