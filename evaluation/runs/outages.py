"""Outages that follow an item: its episodes are ended by one again and again, while those of other items are not.

Such an item, whose image or whose program ends a server each time, must not be asked for ever, nor be left out unseen: it is
called by name, and the setting `repeated_outage` says how it is scored. An outage that ends the episodes of many items in a
row is the servers' and no item's; attempts that fell into one count for nothing here.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.records import EpisodeKey, RolloutHead
from agent.trajectory import RecordReader
from evaluation.runs.settings import EvaluationSettings

ITEMS_OF_A_GENERAL_OUTAGE = 16
"""So many items that fail in a row say that the servers are to blame; a run stops there."""


@dataclass(frozen=True, slots=True)
class RecordedOutages:
    """What the record of a run tells of outages."""

    attempts: int
    """Episodes that one ended, those that were asked again with success among them."""
    repeated: dict[EpisodeKey, str]
    """Episodes that an outage ends every time -> how often, and the last reason."""


def recorded_outages(heads: Iterable[RolloutHead], *, enough: int) -> RecordedOutages:
    """Look for outages that follow an item.

    Args:
        heads: Of the run, in the order in which episodes were committed.
        enough: So many ended attempts and no other make an episode one of them.
    """
    attempts, reasons, answered = 0, defaultdict[EpisodeKey, list[str]](list), set[EpisodeKey]()
    for failed, row in itertools.groupby(heads, key=lambda head: head.failed):
        members = list(row)
        if not failed:
            answered |= {head.facts.key for head in members}
            continue
        attempts += len(members)
        if len({head.facts.item_id for head in members}) < ITEMS_OF_A_GENERAL_OUTAGE:
            for head in members:
                reasons[head.facts.key].append(head.failure)
    repeated = {
        key: f"an outage ended it {len(found)} times, the last: {found[-1]}"
        for key, found in reasons.items()
        if len(found) >= enough and key not in answered
    }
    return RecordedOutages(attempts, repeated if answered else {})


def outages_of(directory: Path, settings: EvaluationSettings) -> RecordedOutages:
    """What the record of a run tells of outages; nothing if it has no episodes yet."""
    path = directory / "episodes.jsonl"
    heads = (head for _, head in RecordReader(path).heads()) if path.exists() else iter(())
    return recorded_outages(heads, enough=settings.outage_attempts)
