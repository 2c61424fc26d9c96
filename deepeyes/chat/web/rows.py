"""Events as the page gets them: JSON with texts, never markup. Images are named, and kept by whoever makes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agent.episode import Turn
from agent.episode_rows import action_to_row
from agent.images import ImageFile, UnreadableImage
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import parse_action
from code_sandbox.redaction import redacted
from deepeyes.chat.events import EpisodeEnded, Event, QuestionAsked, TextWritten, TurnObserved, TurnReplied
from viewer.coloured import MOST_COLOURED_CHARS, coloured
from viewer.pieces import Piece, pieces

Row = dict[str, Any]
Keep = Callable[[ImageFile], None]
_MOST_CHARS = 1_000_000
"""Of a text; a browser shows more only slowly, and nobody reads it."""


def row_of(event: Event, keep: Keep, *, with_past: bool = False) -> Row:
    """One event.

    Args:
        event: Of a conversation, or of a record.
        keep: Is given each image that is named.
        with_past: Tell also what was said before the question, which a page that has seen it does not need.
    """
    match event:
        case QuestionAsked():
            return _question(event, keep, with_past=with_past)
        case TextWritten(text):
            return {"kind": "text", "text": text}
        case TurnReplied(number, turn):
            return {"kind": "reply", "number": number} | _reply(turn)
        case TurnObserved(number, turn):
            return {"kind": "observation", "number": number} | _observation(turn, keep)
        case EpisodeEnded():
            return _end(event)


def _question(event: QuestionAsked, keep: Keep, *, with_past: bool) -> Row:
    system = next((message.text for message in event.opening if message.role == "system"), "")
    last = event.opening[-1]
    images = event.images if event.images is not None else last.images
    typed = [*_image_parts(images, keep), {"text": _cut(event.text)}]
    row: Row = {"kind": "question", "system": _cut(system), "parts": typed if event.text else _parts(last, keep)}
    if with_past:
        row["past"] = [
            {"role": message.role, **_said(message, keep)} for message in event.opening[:-1] if message.role != "system"
        ]
    return row


def _said(message: Message, keep: Keep) -> Row:
    if message.role != "assistant":
        return {"parts": _parts(message, keep)}
    turn = Turn(reply=Reply(text=message.text, finish="stop"), action=parse_action(message.text))
    return {"pieces": [_piece(piece) for piece in pieces(turn)]}


def _reply(turn: Turn) -> Row:
    return {
        "pieces": [_piece(piece) for piece in pieces(turn)],
        "written": _cut(turn.reply.primer + turn.reply.text),
        "action": action_to_row(turn.action),
        "finish": turn.reply.finish,
        "tokens": turn.reply.num_tokens,
        "seconds": turn.reply_s,
    }


def _observation(turn: Turn, keep: Keep) -> Row:
    assert turn.observation is not None
    return {
        "parts": _parts(turn.observation, keep),
        "tool": action_to_row(turn.action).get("tool", ""),
        "error": _cut(turn.tool_error),
        "seconds": turn.tool_s,
    }


def _end(event: EpisodeEnded) -> Row:
    episode = event.episode
    return {
        "kind": "end",
        "episode": episode.episode_id,
        "stop_reason": episode.stop_reason.value,
        "answer": None if episode.answer is None else _cut(episode.answer),
        "failure": redacted(_cut(episode.failure)),
        "turns": len(episode.turns),
        "tokens": episode.num_tokens,
        "seconds": episode.wall_s,
        "recorded": None if event.recorded is None else str(event.recorded),
        "problem": redacted(event.problem),
    }


def _parts(message: Message, keep: Keep) -> list[Row]:
    """Texts and images in reading order."""
    parts: list[Row] = []
    for part in message.parts():
        if isinstance(part, ImageFile):
            parts += _image_parts([part], keep)
        elif part.strip():
            parts.append({"text": _cut(part)})
    return parts


def _image_parts(images: Sequence[ImageFile], keep: Keep) -> Iterator[Row]:
    for image in images:
        try:
            width_px, height_px = image.size
            keep(image)
            yield {"image": image.sha256, "width": width_px, "height": height_px}
        except (UnreadableImage, OSError) as error:
            yield {"text": f"[an image that cannot be shown: {_cut(str(error))[:300]}]"}


def _piece(piece: Piece) -> Row:
    row: Row = {"kind": piece.kind, "text": _cut(piece.text)}
    if piece.kind == "code" and len(piece.text) <= MOST_COLOURED_CHARS:
        row["spans"] = list(coloured(piece.text))
    return row


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARS:
        return text
    return f"{text[:_MOST_CHARS]}\n[… {len(text) - _MOST_CHARS:,} more characters; download the episode for all of them]"
