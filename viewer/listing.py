"""What the list says of an episode, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ListedEpisode:
    """An episode as the list shows it."""

    id: int
    """Its number in this index, which another index of the run may give to another episode."""
    episode_id: str
    item_id: str
    """The item's; of an episode without one its own."""
    sample: int
    step: int | None
    category: str
    stop_reason: str
    reward: float | None
    score: float | None
    """In [0, 1]; None where nobody has decided."""
    answer: str
    gold: str
    turns: int
    tool_calls: int
    tool_errors: int
    tokens: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class EpisodePlace:
    """Where an episode stands in the list, by the names of its neighbours; None at an end, or where it does not fit."""

    previous: str | None
    next: str | None
    number: int
    """From 1; 0 if it does not fit the filters."""
    total: int
    """Episodes that fit."""


@dataclass(frozen=True, slots=True)
class EpisodePage:
    """A page of the list, and what all episodes say that fit."""

    total: int
    """Episodes that fit."""
    items: int
    """Of those episodes that have a score."""
    accuracy: float | None
    """Mean over those items of the mean score of each one's episodes, as an evaluation counts it; None without any."""
    rows: list[ListedEpisode]


COLUMNS = tuple(column.name for column in fields(ListedEpisode))


def order_by(sort: str, *, descending: bool) -> str:
    """The SQL of an order, in which what is not known comes last.

    Raises:
        ValueError: An unknown column.
    """
    if sort not in COLUMNS:
        raise ValueError(f"no column {sort!r}; there are: {', '.join(COLUMNS)}")
    return f"{sort} IS NULL, {sort} {'DESC' if descending else 'ASC'}, id"
