"""A reply in the pieces that a reader tells apart. Together they are all that the model wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.episode import Turn
from agent.protocol import PYTHON, FinalAnswer, ToolCall


@dataclass(frozen=True, slots=True)
class Piece:
    """One of them."""

    kind: Literal["thought", "text", "code", "answer"]
    text: str


def pieces(turn: Turn) -> Iterator[Piece]:
    """Thoughts, texts, and the code that ran or the answer that was taken, in the order in which they were written."""
    text = turn.reply.primer + turn.reply.text
    acted = _acted(turn)
    start = text.rfind(acted.text) if acted is not None and acted.text else -1
    if acted is None or start < 0:
        yield from _texts(text)
        if acted is not None and acted.text:
            yield acted  # the parser has changed it, so that it stands nowhere as it was written
        return
    yield from _texts(text[:start])
    yield acted
    yield from _texts(text[start + len(acted.text) :])


def _acted(turn: Turn) -> Piece | None:
    if isinstance(turn.action, ToolCall) and turn.action.name == PYTHON:
        return Piece("code", str(turn.action.arguments.get("code", "")))
    return Piece("answer", turn.action.text) if isinstance(turn.action, FinalAnswer) else None


def _texts(text: str) -> Iterator[Piece]:
    thought, mark, rest = text.rpartition("</think>")
    if mark:
        yield Piece("thought", thought + mark)
    if rest.strip():
        yield Piece("text", rest)
