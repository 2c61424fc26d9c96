"""What models cost, kept under their caps by all processes of a run together.

Each request is written down before it is sent, at the most that it may cost, and once more when it is answered, at what it
did cost: in one file of the run, by one process at a time. A request that was never answered, as at a kill or a time-out,
may have been paid for all the same, and stays counted at its most.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import PolicyUnavailable
from curation.journal import whole_lines
from curation.settings import Curation, ModelSettings

_FILE, _LOCKS = "spending.jsonl", "spending.locks"
_RANGE = 1 << 62


class CapReached(PolicyUnavailable):
    """One more request might pass a cap; nothing of the run goes on."""

    ends_run = True


@dataclass(frozen=True, slots=True)
class Tokens:
    """Calls and tokens, of one request or of many."""

    calls: int = 0
    prompt: int = 0
    reply: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.calls + other.calls, self.prompt + other.prompt, self.reply + other.reply)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.calls - other.calls, self.prompt - other.prompt, self.reply - other.reply)

    def usd(self, settings: ModelSettings) -> float:
        """What they cost; 0 without prices."""
        return settings.usd(self.prompt, self.reply)


NOTHING = Tokens()


class _Totals:
    """What the file says so far."""

    def __init__(self, path: Path) -> None:
        self._path, self._end = path, 0
        self.answered: dict[str, Tokens] = defaultdict(Tokens)
        self.lost: dict[str, Tokens] = defaultdict(Tokens)
        """At their most."""
        self.under_way: dict[str, Tokens] = defaultdict(Tokens)
        """Sent and not answered, at their most; `open` has each."""
        self.open: dict[str, tuple[str, Tokens]] = {}
        """Ticket -> model, and the most that it may cost."""

    def read(self) -> None:
        """Take in what was added."""
        if not self._path.exists() or self._path.stat().st_size == self._end:
            return
        for line, end in whole_lines(self._path, self._end):
            self._end = end
            tokens = Tokens(line["calls"], line["prompt_tokens"], line["reply_tokens"])
            if line["what"] == "sent":
                self.open[line["id"]] = (line["model"], tokens)
                self.under_way[line["model"]] += tokens
                continue
            name, most = self.open.pop(line["id"], (line["model"], NOTHING))
            self.under_way[name] -= most
            into = self.lost if line["what"] == "lost" else self.answered
            into[line["model"]] += tokens


class RunAccount:
    """The account of a run, as one process sees it and adds to it.

    Args:
        curation: Its folder has the file; its models have the caps.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, curation: Curation) -> None:
        curation.directory.mkdir(parents=True, exist_ok=True)
        self._models: Mapping[str, ModelSettings] = curation.file.models
        self._path = curation.directory / _FILE
        self._totals = _Totals(self._path)
        self._process, self._tickets = uuid.uuid4().hex[:12], 0
        self._dead: set[str] = set()
        self._locks = os.open(curation.directory / _LOCKS, os.O_RDWR | os.O_CREAT, 0o644)
        # Held as long as this process lives: what the requests of a process that is gone have cost nobody will say any more.
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, _place(self._process))

    def reserve(self, name: str, most: Tokens) -> str:
        """Write a request down before it is sent.

        Args:
            name: The model's in the file.
            most: What it may cost.

        Returns:
            Its ticket; empty if there may be room once others, that are under way, have been answered.

        Raises:
            CapReached: There is none, whatever those under way cost.
            OSError: There is no room on the disk.
        """
        with self._alone():
            self._totals.read()
            if not self._passed(name, most, self._totals.under_way[name]):
                self._tickets += 1
                ticket = f"{self._process}-{self._tickets}"
                self._write(ticket, name, "sent", most)
                return ticket
            tickets = self._totals.open.items()
            gone = sum((each for ticket, (model, each) in tickets if model == name and self._is_dead(ticket)), NOTHING)
            if why := self._passed(name, most, gone):
                raise CapReached(why)
        return ""

    def settle(self, ticket: str, name: str, cost: Tokens, *, lost: bool = False) -> None:
        """Write down what a request has cost; `lost` is one whose answer never came.

        Raises:
            OSError: There is no room on the disk; it stays counted at its most.
        """
        with self._alone():
            self._write(ticket, name, "lost" if lost else "answered", cost)

    def close(self) -> None:
        """Give the locks back."""
        os.close(self._locks)

    def _passed(self, name: str, most: Tokens, unanswered: Tokens) -> str:
        """Which cap would be passed by one more; empty if none."""
        settings, answered = self._models[name], self._totals.answered[name]
        unknown = self._totals.lost[name] + unanswered
        total, lost, unpaid = answered + unknown + most, "", ""
        if unknown.calls:
            lost = f" ({unknown.calls:,} more were never answered, and count as if they had been)"
            unpaid = f" and at most {unknown.usd(settings):,.4f} for {unknown.calls:,} never answered"
        if (calls := settings.max_calls) is not None and total.calls > calls:
            return f"the model {name!r} was asked {answered.calls:,} times{lost}, max_calls is {calls:,}; raise it"
        if (cost := settings.max_cost_usd) is not None and total.usd(settings) > cost * (1 + 1e-9):
            return (
                f"the model {name!r} has cost {answered.usd(settings):,.4f} USD{unpaid}, one more request up to "
                f"{most.usd(settings):,.4f}, max_cost_usd is {cost:,.4f}; raise it"
            )
        return ""

    def _is_dead(self, ticket: str) -> bool:
        process = ticket.partition("-")[0]
        if process == self._process:
            return False
        if process not in self._dead:
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(process))
            except OSError:
                return False
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, _place(process))
            self._dead.add(process)
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, 0)

    def _write(self, ticket: str, name: str, what: str, tokens: Tokens) -> None:
        counts = {"calls": tokens.calls, "prompt_tokens": tokens.prompt, "reply_tokens": tokens.reply}
        line = b"\n" + json.dumps({"id": ticket, "model": name, "what": what} | counts).encode() + b"\n"
        with self._path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(f"{self._path} took a part of a line; is the disk full?")


def _place(process: str) -> int:
    return 1 + int(process, 16) % _RANGE


def spent_by_model(curation: Curation) -> dict[str, dict[str, Any]]:
    """Calls, tokens and money by the models' names in the file, over all processes and repetitions; `usd_at_most` counts
    requests that were never answered at their most.
    """
    totals, found = _Totals(curation.directory / _FILE), {}
    totals.read()
    for name, settings in curation.file.models.items():
        answered, unknown = totals.answered[name], totals.lost[name] + totals.under_way[name]
        found[name] = {
            "model": settings.model,
            "calls": answered.calls,
            "prompt_tokens": answered.prompt,
            "reply_tokens": answered.reply,
            "usd": round(answered.usd(settings), 4),
            "unanswered": unknown.calls,
            "usd_at_most": round((answered + unknown).usd(settings), 4),
        }
    return found
