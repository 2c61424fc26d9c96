"""An episode as JSON and back, of any version of the records (agent/records.py has the rest of a line).

Token ids and log-probabilities are packed (zlib, base64): thousands of image placeholders in a prompt then take a few bytes.
Images are named by the SHA-256 of their bytes.
"""

from __future__ import annotations

import array
import base64
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.episode import Ended, Episode, Outage, StopReason, Turn
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import Action, FinalAnswer, Malformed, ToolCall


class UnreadableRecord(ValueError):
    """A line is no record, or one that contradicts itself."""


class NewerRecord(ValueError):
    """A line was written by a newer version of this code."""


def ended_as(stop_reason: StopReason, failure: str) -> Ended | Outage:
    """The end of an episode out of its two names in a record.

    Raises:
        UnreadableRecord: They contradict each other.
    """
    if stop_reason is StopReason.FAILED:
        if not failure.strip():
            raise UnreadableRecord("stop_reason is 'failed', and no failure says what broke")
        return Outage(reason=failure)
    if failure:
        raise UnreadableRecord(f"stop_reason is '{stop_reason.value}', and yet there is a failure: {failure[:200]!r}")
    return stop_reason


def message_to_row(message: Message) -> dict[str, object]:
    """A message, its images by name."""
    return {"role": message.role, "text": message.text, "images": [image.sha256 for image in message.images]}


def turn_to_row(turn: Turn) -> dict[str, object]:
    """A turn, its tokens packed."""
    return {
        "text": turn.reply.text,
        "primer": turn.reply.primer,
        "finish": turn.reply.finish,
        "num_tokens": turn.reply.num_tokens,
        "num_prompt_tokens": turn.reply.num_prompt_tokens,
        "context_ids": _pack("i", turn.reply.context_ids),
        "token_ids": _pack("i", turn.reply.token_ids),
        "logprobs": _pack("d", turn.reply.logprobs),
        "action": action_to_row(turn.action),
        "observation": None if turn.observation is None else message_to_row(turn.observation),
        "tool_error": turn.tool_error,
        "at_s": round(turn.at_s, 4),
        "reply_s": round(turn.reply_s, 4),
        "tool_s": round(turn.tool_s, 4),
        "program_s": round(turn.program_s, 4),
        "waited_s": round(turn.waited_s, 4),
    }


def action_to_row(action: Action) -> dict[str, object]:
    """`answer`; or `tool` and `arguments`; or `malformed` and what the model was `told`."""
    if isinstance(action, FinalAnswer):
        return {"answer": action.text}
    if isinstance(action, ToolCall):
        return {"tool": action.name, "arguments": action.arguments}
    return {"malformed": action.reason, "told": action.observation}


def _pack(kind: str, values: Sequence[float]) -> str:
    """`i` for ids, `d` for log-probabilities."""
    packed = array.array(kind, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(zlib.compress(packed.tobytes())).decode() if values else ""


def episode_from_row(row: Mapping[str, Any], image: Callable[[str], ImageFile]) -> Episode:
    """The episode of a parsed line.

    Args:
        row: Of any version.
        image: Finds an image by its name.

    Raises:
        UnreadableRecord: Its end contradicts itself.
        KeyError, TypeError, ValueError: It is of another shape.
    """

    def message(saved: Mapping[str, Any]) -> Message:
        return Message(saved["role"], saved["text"], tuple(image(sha256) for sha256 in saved["images"]))

    return Episode(
        opening=tuple(message(saved) for saved in row["opening"]),
        turns=[_turn(saved, message) for saved in row["turns"]],
        end=ended_as(StopReason(row["stop_reason"]), row["failure"]),
        answer=row["answer"],
        episode_id=row["episode_id"],
        started_at=row.get("started_at", 0.0),
        wall_s=row.get("wall_s", 0.0),
    )


def _turn(saved: Mapping[str, Any], message: Callable[[Mapping[str, Any]], Message]) -> Turn:
    reply = Reply(
        text=saved["text"],
        finish=saved["finish"],
        primer=saved["primer"],
        token_ids=_unpack("i", saved["token_ids"]),
        logprobs=_unpack("d", saved["logprobs"]),
        num_tokens=saved["num_tokens"],
        context_ids=_unpack("i", saved.get("context_ids", "")),
        num_prompt_tokens=saved.get("num_prompt_tokens", 0),
    )
    return Turn(
        reply=reply,
        action=_action(saved["action"]),
        observation=None if saved["observation"] is None else message(saved["observation"]),
        tool_error=saved["tool_error"],
        at_s=saved.get("at_s", 0.0),
        reply_s=saved["reply_s"],
        tool_s=saved["tool_s"],
        program_s=saved.get("program_s", 0.0),
        waited_s=saved.get("waited_s", 0.0),
    )


def _action(saved: Mapping[str, Any]) -> Action:
    if "answer" in saved:
        return FinalAnswer(saved["answer"])
    if "tool" in saved:
        return ToolCall(saved["tool"], saved["arguments"])
    return Malformed(saved["malformed"], saved["told"])


def _unpack(kind: str, packed: str | Sequence[float]) -> tuple[Any, ...]:
    if not isinstance(packed, str):
        return tuple(packed)
    values = array.array(kind)
    values.frombytes(zlib.decompress(base64.b64decode(packed)) if packed else b"")
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)
