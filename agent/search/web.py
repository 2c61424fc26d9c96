"""Asking other people's servers: how often, how long, how many times again, and for how much."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field

from agent.errors import BudgetExhausted, ToolError, ToolUnavailable
from agent.search.limits import refuses_length
from agent.search.page_reader import PageReader
from code_sandbox.redaction import redact_requests_log, redacted, secrets_of
from serving.retries import RETRIED, pause_before_s

T = TypeVar("T")
_LONGEST_PAUSE_S = 8.0
_ADVICE = {
    400: "the request was refused; check the provider's settings",
    401: "the key is missing or wrong",
    402: "the account has no credit left",
    403: "the key may not do this, or the server does not offer JSON",
    404: "is base_url right?",
    429: "too many requests; lower requests_per_s or max_in_flight",
    432: "the plan's limit is reached",
    433: "the pay-as-you-go limit is reached",
}


class WebSettings(BaseModel):
    """How a source may be asked. Shared by all providers that have a server behind them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_in_flight: int = Field(8, ge=1)
    requests_per_s: float | None = Field(None, gt=0)
    """Of this process; None is as fast as `max_in_flight` allows."""
    attempts: int = Field(5, ge=1)
    """Times a request is sent before the source counts as down."""
    timeout_s: float = Field(15.0, gt=0)
    """Of one attempt."""
    deadline_s: float = Field(60.0, gt=0)
    """Of all attempts and the pauses between them; waiting for a slot and for the rate is left out."""
    max_calls: int | None = Field(None, ge=0)
    """Requests a run may send."""
    max_cost_usd: float | None = Field(None, ge=0)
    """Money a run may spend."""
    price_usd: float | None = Field(None, ge=0)
    """Of one answered request; by default what the provider's file says of its list price."""


class Ledger(Protocol):
    """Where the spending of a run is counted: in this process, in its recording, or in Redis for all its nodes."""

    async def spend(self, calls: int, usd: float, *, max_calls: int | None, max_usd: float | None) -> bool:
        """Add to the account, unless that would exceed a limit; negative amounts give back."""
        ...

    async def spent(self) -> tuple[int, float]:
        """(calls, dollars)."""
        ...


class LocalLedger:
    """The ledger of one process."""

    def __init__(self) -> None:
        self._calls, self._usd = 0, 0.0

    async def spend(self, calls: int, usd: float, *, max_calls: int | None, max_usd: float | None) -> bool:
        """See `Ledger`."""
        if max_calls is not None and self._calls + calls > max_calls:
            return False
        if max_usd is not None and self._usd + usd > max_usd + 1e-9:
            return False
        self._calls += calls
        self._usd += usd
        return True

    async def spent(self) -> tuple[int, float]:
        """See `Ledger`."""
        return self._calls, self._usd


class TryLater(Exception):
    """An attempt failed in a way that another may not.

    Args:
        reason: For the error, should no attempt succeed.
        retry_after_s: What the server asked for.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class WebClient:
    """One source, shared by the episodes of a process.

    Args:
        source: Its name, for errors.
        settings: How it may be asked.
        price_usd: Of one answered request, unless the settings say otherwise.
        ledger: Where spending is counted.
        transport: For tests.
    """

    def __init__(
        self,
        source: str,
        settings: WebSettings,
        *,
        price_usd: float = 0.0,
        ledger: Ledger | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._price_usd = price_usd if settings.price_usd is None else settings.price_usd
        self._ledger = ledger or LocalLedger()
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._next_at = 0.0
        self._secrets: set[str] = set()
        self.pages = PageReader()
        """Takes the text out of what was fetched."""
        redact_requests_log()
        self.http = httpx.AsyncClient(
            transport=transport,
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.max_in_flight),
            headers={"User-Agent": "deepeyes (research agent)"},
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()
        await self.pages.aclose()

    async def spent(self) -> tuple[int, float]:
        """(calls, dollars) of the run."""
        return await self._ledger.spent()

    def keep_secret(self, secret: str) -> None:
        """Cut a key out of everything that is said of this source."""
        self._secrets.add(secret)

    def scrub(self, text: str) -> str:
        """The text without keys and passwords."""
        return redacted(text, *self._secrets)

    async def json(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        check: Callable[[Any], None] | None = None,
        **request: Any,
    ) -> Any:
        """Send a request until there is JSON; `check` raises TryLater for an answer that says it is none.

        Raises:
            ToolUnavailable: There was none in time; names status and advice.
            BudgetExhausted: Calls or money are spent.
            ToolError: The server says that the query is too long for it: only the model can shorten it.
        """
        self._secrets.update(secrets_of(url))

        async def once() -> Any:
            response = await self.http.request(method, url, headers=dict(headers or {}), **request)
            if response.status_code == 200:
                try:
                    answer = response.json()
                except ValueError as error:
                    raise TryLater(f"the answer is no JSON: {self.scrub(response.text)[:100]!r}") from error
                if problem := _told_error(answer):
                    raise TryLater(f"the answer is an error: {self.scrub(problem)[:200]!r}")
                if check is not None:
                    check(answer)
                return answer
            if refuses_length(response.status_code, response.text[:2000]):
                raise ToolError("the search refused `query` as too long; ask again with the few words that matter most")
            reason = f"HTTP {response.status_code}: {self.scrub(response.text)[:200]!r}"
            if response.status_code in RETRIED:
                raise TryLater(_advised(reason, response.status_code), retry_after_s=_retry_after_s(response))
            raise ToolUnavailable(self.scrub(f"{self.source}: {_advised(reason, response.status_code)}"))

        return await self.attempt(once)

    async def attempt(self, once: Callable[[], Awaitable[T]], *, free: bool = False) -> T:
        """Call `once` under all limits until it succeeds.

        Args:
            once: Raises TryLater or an `httpx.TransportError` if another attempt makes sense.
            free: Whether the source is not the one who is paid, as for a page of somebody else's.

        Raises:
            ToolUnavailable: No attempt succeeded in time.
            BudgetExhausted: Calls or money are spent.
        """
        price_usd = 0.0 if free else self._price_usd
        async with self._slots:
            started = time.monotonic()
            last = "no attempt"
            for number in range(self.settings.attempts):
                if number:
                    self.counters["retries"] += 1
                started += await self._take_turn()
                await self._charge(price_usd)
                left_s = self.settings.deadline_s - (time.monotonic() - started)
                paid = False
                try:
                    async with asyncio.timeout(left_s):
                        answer = await once()
                    paid = True
                    return answer
                except TryLater as error:
                    last, wanted_s = str(error), error.retry_after_s
                except (httpx.TransportError, TimeoutError) as error:
                    last, wanted_s = f"{type(error).__name__}: {error}", 0.0
                finally:
                    if not paid:
                        await self._ledger.spend(0, -price_usd, max_calls=None, max_usd=None)
                pause_s = max(wanted_s, pause_before_s(number + 1, longest_s=_LONGEST_PAUSE_S))
                if time.monotonic() - started + pause_s >= self.settings.deadline_s:
                    last += f"; gave up after {time.monotonic() - started:.1f} s"
                    break
                if number + 1 < self.settings.attempts:
                    await asyncio.sleep(pause_s)
            self.counters["failures"] += 1
            raise ToolUnavailable(self.scrub(f"{self.source} gave no answer in {number + 1} attempts: {last}"))

    async def _take_turn(self) -> float:
        """Wait for the rate; returns how long, in seconds."""
        if self.settings.requests_per_s is None:
            return 0.0
        now = time.monotonic()
        turn_at = max(self._next_at, now)
        self._next_at = turn_at + 1 / self.settings.requests_per_s
        await asyncio.sleep(turn_at - now)
        return turn_at - now

    async def _charge(self, price_usd: float) -> None:
        limits = self.settings
        if not await self._ledger.spend(1, price_usd, max_calls=limits.max_calls, max_usd=limits.max_cost_usd):
            calls, usd = await self._ledger.spent()
            raise BudgetExhausted(
                f"{self.source}: {calls:,} calls and ${usd:.2f} are spent; raise max_calls or max_cost_usd to go on"
            )
        self.counters["requests"] += 1


def _told_error(answer: Any) -> str:
    """What an answer of status 200 says went wrong, in place of results; empty for none: a search may find nothing."""
    if not isinstance(answer, dict) or any(isinstance(value, list) and value for value in answer.values()):
        return ""
    return str(next(filter(None, (answer.get(name) for name in ("error", "errors", "detail", "message"))), ""))


def _advised(reason: str, status: int) -> str:
    advice = _ADVICE.get(status, "the server has trouble" if status >= 500 else "")
    return f"{reason} ({advice})" if advice else reason


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
