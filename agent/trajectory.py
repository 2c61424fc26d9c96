"""Episodes on disk: one JSON object a line, images beside it by content hash.

    <directory>/episodes.jsonl
    <directory>/images/<sha256>

Reading gives back an equal episode. A line cut off by a kill is skipped and reported, never an obstacle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.episode import Episode, StopReason, Turn
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, Malformed, ToolCall

VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """An episode with what is known about it: item, scores, training step."""

    episode: Episode
    facts: dict[str, Any] = field(default_factory=dict)


class TrajectoryWriter:
    """Appends to a directory. One line is one write, so several processes may share a file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "episodes.jsonl"
        self._images = directory / "images"
        self._images.mkdir(parents=True, exist_ok=True)

    def write(self, episode: Episode, **facts: Any) -> None:
        """Append one episode; its images first, so that a line never points at nothing."""
        for message in _messages(episode):
            for image in message.images:
                path = self._images / image.sha256
                if not path.exists():
                    partial = path.with_name(f"{path.name}.{os.getpid()}")
                    partial.write_bytes(image.data)
                    partial.replace(path)
        line = json.dumps({"version": VERSION, **_to_dict(episode), "facts": facts}, ensure_ascii=False) + "\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # A kill in the middle of a write leaves half a line; the next line must not be glued to it.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_records(directory: Path) -> Iterator[Record]:
    """Episodes in the order they were written; broken lines are left out.

    Raises:
        FileNotFoundError: Nothing was recorded there.
        ValueError: A line was written by a newer version.
    """
    path = directory / "episodes.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"no episodes in {directory}; expected {path.name} there")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if not isinstance(row, dict):
                continue
            if row["version"] > VERSION:
                raise ValueError(f"{path} has version {row['version']}, this code reads up to {VERSION}; update it")
            yield Record(_from_dict(row, directory / "images"), row["facts"])


def _messages(episode: Episode) -> Iterator[Message]:
    yield from episode.opening
    for turn in episode.turns:
        if turn.observation is not None:
            yield turn.observation


def _message_to_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "text": message.text, "images": [image.sha256 for image in message.images]}


def _to_dict(episode: Episode) -> dict[str, Any]:
    return {
        "episode_id": episode.episode_id,
        "stop_reason": episode.stop_reason.value,
        "answer": episode.answer,
        "failure": episode.failure,
        "opening": [_message_to_dict(message) for message in episode.opening],
        "turns": [_turn_to_dict(turn) for turn in episode.turns],
    }


def _turn_to_dict(turn: Turn) -> dict[str, Any]:
    action = turn.action
    if isinstance(action, FinalAnswer):
        described: dict[str, Any] = {"answer": action.text}
    elif isinstance(action, ToolCall):
        described = {"tool": action.name, "arguments": action.arguments}
    else:
        described = {"malformed": action.reason, "told": action.observation}
    return {
        "text": turn.reply.text,
        "primer": turn.reply.primer,
        "finish": turn.reply.finish,
        "num_tokens": turn.reply.num_tokens,
        "token_ids": list(turn.reply.token_ids),
        "logprobs": [round(value, 5) for value in turn.reply.logprobs],
        "action": described,
        "observation": None if turn.observation is None else _message_to_dict(turn.observation),
        "tool_error": turn.tool_error,
        "reply_s": round(turn.reply_s, 4),
        "tool_s": round(turn.tool_s, 4),
    }


def _from_dict(row: Mapping[str, Any], images: Path) -> Episode:
    def message(saved: Mapping[str, Any]) -> Message:
        files = tuple(ImageFile((images / sha256).read_bytes()) for sha256 in saved["images"])
        return Message(saved["role"], saved["text"], files)

    episode = Episode(
        opening=tuple(message(saved) for saved in row["opening"]),
        stop_reason=StopReason(row["stop_reason"]),
        answer=row["answer"],
        failure=row["failure"],
        episode_id=row["episode_id"],
    )
    for turn in row["turns"]:
        described = turn["action"]
        if "answer" in described:
            action: FinalAnswer | ToolCall | Malformed = FinalAnswer(described["answer"])
        elif "tool" in described:
            action = ToolCall(described["tool"], described["arguments"])
        else:
            action = Malformed(described["malformed"], described["told"])
        reply = Reply(
            text=turn["text"],
            finish=turn["finish"],
            primer=turn["primer"],
            token_ids=tuple(turn["token_ids"]),
            logprobs=tuple(turn["logprobs"]),
            num_tokens=turn["num_tokens"],
        )
        episode.turns.append(
            Turn(
                reply=reply,
                action=action,
                observation=None if turn["observation"] is None else message(turn["observation"]),
                tool_error=turn["tool_error"],
                reply_s=turn["reply_s"],
                tool_s=turn["tool_s"],
            )
        )
    return episode
