"""Why episodes went wrong, in words that many of them share, so that they can be counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from agent.episode import StopReason
from agent.protocol import ToolCall
from agent.records import Rollout
from viewer.filters import where
from viewer.index import EpisodeIndex

Kind = Literal["outage", "end", "tool"]
_MOST_CHARS = 160
_MOST_CLUSTERS = 500
# What differs between two failures of one reason. The order matters: an address has digits in it.
_PARTICULARS = (
    (re.compile(r"\w+://[^\s'\",;)]+"), "URL"),
    (re.compile(r"(?<![\w.])(?:/[\w.@+-]+){2,}"), "PATH"),
    (re.compile(r"'[^']{1,200}'|\"[^\"]{1,200}\"|«[^»]{1,200}»"), "'…'"),
    (re.compile(r"\b(?:0x)?(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b"), "ID"),
    (re.compile(r"(?<!HTTP )(?<!status )\b\d+(?:[.,:]\d+)*"), "N"),
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Episodes that went wrong for one reason."""

    kind: Kind
    """An outage of ours, an end without an answer, or a tool's error that the model was told."""
    reason: str
    episodes: int
    first_step: int | None
    last_step: int | None
    example: str
    """The newest of them, by its id."""


def reason_of(text: str) -> str:
    """What a failure has in common with others: its first line without addresses, paths, quotations and numbers."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()[: 10 * _MOST_CHARS]
    for particular, name in _PARTICULARS:
        line = particular.sub(name, line)
    return line if len(line) <= _MOST_CHARS else line[:_MOST_CHARS] + "…"


def reasons(rollout: Rollout) -> Iterator[tuple[Kind, str]]:
    """All that went wrong in an episode, some of it perhaps several times."""
    episode = rollout.episode
    if episode.failed:
        yield "outage", reason_of(episode.failure)
    elif episode.stop_reason is not StopReason.ANSWERED:
        yield "end", episode.stop_reason.value
    for turn in episode.turns:
        if turn.tool_error:
            name = turn.action.name if isinstance(turn.action, ToolCall) else "a call that could not be read"
            yield "tool", reason_of(f"{name[:80]}: {turn.tool_error}")


def clusters(index: EpisodeIndex, filters: Mapping[str, str]) -> list[Cluster]:
    """The reasons of the episodes that fit, the most frequent first.

    Args:
        index: Whose words have been read; see `Words`.
        filters: See `where`.

    Raises:
        ValueError: A value that its filter cannot have.
    """
    condition, values = where(filters)
    counted = (
        "SELECT kind, reason, count(*) AS episodes, min(step) AS first, max(step) AS last, max(id) AS newest "  # noqa: S608
        f"FROM said.reasons JOIN episodes USING (id) WHERE {condition} GROUP BY kind, reason "
        f"ORDER BY episodes DESC, kind, reason LIMIT {_MOST_CLUSTERS}"
    )
    found = index.select(
        f"SELECT kind, reason, counted.episodes, first, last, episode_id FROM ({counted}) AS counted "  # noqa: S608
        "JOIN episodes ON id = newest ORDER BY 3 DESC, kind, reason",
        values,
    )
    return [Cluster(*row) for row in found]
