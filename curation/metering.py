"""Requests to a model, each written down in the run's account before it is sent and after it is answered."""

from __future__ import annotations

import asyncio
import json
import re

import httpx

from curation.settings import ModelSettings
from curation.spending import NOTHING, CapReached, RunAccount, Tokens

_LIMIT = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d+)')
"""Within texts of a JSON document quotes are escaped, so that this is found nowhere else."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_LOOK_S = 0.05


class Metered(httpx.AsyncBaseTransport):
    """Sends requests when the caps have room for the most that they may cost.

    Args:
        inner: What really sends.
        account: The run's.
        name: The model's in the file.
        settings: Its own.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, account: RunAccount, name: str, settings: ModelSettings) -> None:
        self._inner, self._account, self._name, self._settings = inner, account, name, settings
        self._surprise, self._turn = "", asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises:
        CapReached: No more may be asked, or a request took more than the file allows for.
        """
        if self._surprise:
            raise CapReached(self._surprise)
        limit = _LIMIT.search(request.content)
        most = _most(self._settings, int(limit[1]) if limit else None)
        async with self._turn:  # one looks for room, the others wait behind it
            while not (ticket := self._account.reserve(self._name, most)):
                await asyncio.sleep(_LOOK_S)
        cost, lost = most, True
        try:
            response = await self._inner.handle_async_request(request)
            content = await response.aread()
            cost, lost = (_cost(content, most), False) if response.status_code == 200 else (NOTHING, False)
        except _NEVER_SENT:
            cost, lost = NOTHING, False
            raise
        finally:
            self._account.settle(ticket, self._name, cost, lost=lost)
        self._check(cost)
        return response

    def _check(self, cost: Tokens) -> None:
        window, taken = self._settings.context_tokens, cost.prompt + cost.reply
        if window is not None and taken > window:
            self._surprise = (
                f"a request to the model {self._name!r} took {taken:,} tokens, context_tokens is {window:,}; raise it: "
                "by it caps count what is under way"
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _most(settings: ModelSettings, reply_limit: int | None) -> Tokens:
    """What a request may cost: the dearest way to fill the model's window."""
    window = settings.context_tokens
    if window is None:
        return Tokens(calls=1)
    reply = window if reply_limit is None else min(reply_limit, window)
    written = Tokens(1, window - reply, reply)
    read = Tokens(1, window, 0)
    return max(written, read, key=lambda tokens: tokens.usd(settings))


def _cost(content: bytes, most: Tokens) -> Tokens:
    """What an answer says that it cost; the most if it does not say."""
    try:
        usage = json.loads(content)["usage"]
        return Tokens(1, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    except (ValueError, LookupError, TypeError):
        return most
