"""Asks models for what is still missing: bounded, journalled, within caps, and stopped where going on is pointless."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.openai_chat import ChatClient, ChatSettings
from agent.scheduling import for_each
from code_sandbox.pools import Pools
from curation.errors import CurationStopped
from curation.journal import AnswerJournal
from curation.metering import Metered
from curation.rows import CuratedRow
from curation.settings import ModelSettings
from curation.spending import RunAccount
from serving.fleet import Fleet

_IN_A_ROW = 20
"""Outages one after the other, with no answer between them, that are nobody's bad luck any more."""
_ROUNDS = 2
"""Times that a run asks for an answer which an outage ended; what is left is asked for when the run is repeated."""
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedAnswer:
    """One answer that is wanted."""

    id: str
    """Digest of all that decides it."""
    row: CuratedRow
    sample: int
    model: str
    """As the file calls it."""


class Endpoint:
    """A model's servers as one client that keeps to its caps."""

    def __init__(self, name: str, settings: ModelSettings, account: RunAccount) -> None:
        self.settings = settings
        self.fleet = Fleet(
            settings.base_urls,
            max_in_flight=settings.max_in_flight,
            inner=Metered(Pools(max_in_flight=settings.max_in_flight), account, name, settings),
            patience_s=settings.patience_s,
        )
        chat = ChatSettings(
            base_url=settings.base_urls[0],
            model=settings.model,
            api_key=settings.api_key,
            dialect=settings.dialect,
            temperature=settings.temperature,
            top_p=settings.top_p,
            timeout_s=settings.timeout_s,
            attempts=settings.attempts,
        )
        self.client = ChatClient(chat, transport=self.fleet, others=settings.base_urls)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


@dataclass(slots=True)
class _Stop:
    """Whether to go on."""

    endpoints: Mapping[str, Endpoint]
    reason: str = ""
    failures: int = 0
    left_out: list[WantedAnswer] = field(default_factory=list)

    def look(self, entry: Mapping[str, Any]) -> bool:
        """Whether to stop after an answer."""
        self.failures = 0 if entry["done"] else self.failures + 1
        # An answer may need several models, such as a writer and its checker.
        down = [f"{name}: {endpoint.fleet.down}" for name, endpoint in self.endpoints.items() if endpoint.fleet.down]
        if entry.get("ends_run"):
            self.reason = entry["why"]
        elif not entry["done"] and down:
            self.reason = down[0]
        elif self.failures >= _IN_A_ROW:
            self.reason = f"{self.failures} answers in a row were lost, the last because of {entry['why']}"
        return bool(self.reason)


async def ask_all(
    wanted: Sequence[WantedAnswer],
    journal: AnswerJournal,
    endpoints: Mapping[str, Endpoint],
    do: Callable[[WantedAnswer], Awaitable[dict[str, Any]]],
) -> None:
    """Ask for what the journal lacks, and wait for what other processes are asking for.

    Args:
        wanted: In order.
        journal: Of the step.
        endpoints: By the models' names in the file.
        do: Gives a line of the journal, without its `id`, `row`, `sample` and `model`.

    Raises:
        CurationStopped: A cap is reached, no server is left, or only outages come back.
    """
    stop = _Stop(endpoints)
    most = max(endpoint.settings.max_in_flight for endpoint in endpoints.values())
    todo = [asked for asked in wanted if asked.id not in journal]
    for _ in range(_ROUNDS):
        failed: list[WantedAnswer] = []
        while todo:
            busy: list[WantedAnswer] = []

            async def one(asked: WantedAnswer, failed: list[WantedAnswer] = failed, busy: list[WantedAnswer] = busy) -> bool:
                return await _one(asked, journal, do, stop, failed, busy)

            try:
                begun = await for_each(todo, one, max_in_flight=most)
            except ExceptionGroup as group:
                # What broke one is told by itself; a full disk is not a fault of ours, and is told what to do about.
                error = group.exceptions[0]
                raise (CurationStopped(f"{error}; make room") if _is_full(error) else error) from None
            if not begun or stop.reason:
                raise CurationStopped(f"stopped: {stop.reason}. What was done is kept; the same command goes on")
            journal.refresh()
            if len(todo) == len(busy):
                await asyncio.sleep(_LOOK_S)
            todo = [asked for asked in busy if asked.id not in journal]
        todo = failed


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


async def _one(
    asked: WantedAnswer,
    journal: AnswerJournal,
    do: Callable[[WantedAnswer], Awaitable[dict[str, Any]]],
    stop: _Stop,
    failed: list[WantedAnswer],
    busy: list[WantedAnswer],
) -> bool:
    """Ask for one answer; whether to go on."""
    if stop.reason:
        return False
    if not journal.claim(asked.id):
        busy.append(asked)
        return True
    try:
        said = await do(asked)
        entry = {"id": asked.id, "row": asked.row.key, "sample": asked.sample, "model": asked.model} | said
        journal.add(entry)
    finally:
        journal.release(asked.id)
    if not entry["done"]:
        failed.append(asked)
    return not stop.look(entry)
