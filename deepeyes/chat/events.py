"""What happens in a conversation, as those who show it are told. A recorded episode tells the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.episode import Episode, Turn
from agent.images import ImageFile
from agent.messages import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionAsked:
    """A question goes to the model."""

    opening: tuple[Message, ...]
    """All that the model reads first, earlier questions and their replies included."""
    text: str
    """As it was typed; empty where the record does not say."""
    images: tuple[ImageFile, ...] | None = None
    """That came with it; None where the record does not tell them from earlier ones."""


@dataclass(frozen=True, slots=True)
class TextWritten:
    """The model has written a piece of its reply."""

    text: str


@dataclass(frozen=True, slots=True)
class TurnReplied:
    """A reply is whole; the tool that it calls, if any, runs now."""

    number: int
    """From 1."""
    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnObserved:
    """The model will be shown this observation."""

    number: int
    turn: Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeEnded:
    """There is an answer, or a reason why there is none."""

    episode: Episode
    recorded: Path | None = None
    """The folder of the record."""
    problem: str = ""
    """Why there is no record where there should be one."""


Event = QuestionAsked | TextWritten | TurnReplied | TurnObserved | EpisodeEnded


def events_of(episode: Episode, *, text: str = "", recorded: Path | None = None) -> Iterator[Event]:
    """An episode that is over, event by event.

    Args:
        episode: As it was recorded.
        text: The question as it was typed, if that is known.
        recorded: Where.
    """
    yield QuestionAsked(opening=episode.opening, text=text)
    for number, turn in enumerate(episode.turns, start=1):
        yield TurnReplied(number, turn)
        if turn.observation is not None:
            yield TurnObserved(number, turn)
    yield EpisodeEnded(episode=episode, recorded=recorded)
