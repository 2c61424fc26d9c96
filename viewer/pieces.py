"""A reply in the pieces that a reader tells apart. Together they are all that was written, to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.episode import Turn
from agent.protocol import PYTHON, Action, FinalAnswer, ToolCall, parse_action_and_place


@dataclass(frozen=True, slots=True)
class Piece:
    """One of them."""

    kind: Literal["thought", "text", "code", "call", "answer"]
    text: str


def pieces(turn: Turn) -> Iterator[Piece]:
    """Thoughts, texts, and the code, call or answer that was taken, in the order in which they were written."""
    text = turn.reply.primer + turn.reply.text
    acted = _acted(turn.action)
    if acted is None:
        yield from _texts(text)
        return
    action, place = parse_action_and_place(text)
    if action != turn.action:
        # A parser of before has read it otherwise. What it took is shown, wherever that stands.
        start = text.rfind(acted.text)
        place = slice(start, start + len(acted.text)) if start >= 0 else slice(len(text), len(text))
    written = text[place]
    yield from _texts(text[: place.start])
    # Code may also have come as an argument of a call.
    yield Piece("call", written) if written and written != acted.text else acted
    yield from _texts(text[place.stop :])


def _acted(action: Action) -> Piece | None:
    if isinstance(action, FinalAnswer):
        return Piece("answer", action.text)
    if not isinstance(action, ToolCall):
        return None
    return Piece("code", str(action.arguments.get("code", ""))) if action.name == PYTHON else Piece("call", action.name)


def _texts(text: str) -> Iterator[Piece]:
    thought, mark, rest = text.rpartition("</think>")
    if mark:
        yield Piece("thought", thought + mark)
    if rest:
        yield Piece("text", rest)
