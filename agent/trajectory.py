"""Episodes on disk: one JSON object a line, images beside it by content hash.

    <directory>/episodes.jsonl            written by one process at a time, or
    <directory>/episodes-<writer>.jsonl   by many on several nodes, each its own: appending to one file is not atomic on NFS
    <directory>/images/<sha256>           or <first two digits>/<sha256>; what a store of the run has is not written again
    <directory>/previews/<sha256>         instead of an image that was too large to be recorded as it is

Reading gives back an equal episode, but for images of which only a preview was kept. A line cut off by a kill is skipped,
never an obstacle. Token ids and log-probabilities are packed (zlib, base64): thousands of image placeholders in a prompt
then take a few bytes.
"""

from __future__ import annotations

import array
import base64
import json
import os
import socket
import sys
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.episode import Episode, StopReason, Turn
from agent.images import ImageFile, UnreadableImage, preview
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, Malformed, ToolCall

VERSION = 2
"""1 had plain lists of ids, and neither context ids nor times; it is still read."""


@dataclass(frozen=True, slots=True)
class Record:
    """An episode with what is known about it: item, scores, training step."""

    episode: Episode
    facts: dict[str, Any] = field(default_factory=dict)


class TrajectoryWriter:
    """Appends to a directory, on the caller's thread.

    Args:
        directory: Made if it is not there.
        shared: Whether other processes write to it too; this one then has a file of its own.
        images: The run's store of its data's images, as <first two digits>/<sha256>; what it has is not written again.
        max_pixels: Of an image, width times height; of a larger one a JPEG of at most so many is kept, unless the store has
            the image anyway. None keeps every image as it is.
    """

    def __init__(
        self, directory: Path, *, shared: bool = False, images: Path | None = None, max_pixels: int | None = None
    ) -> None:
        host = "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())[:32]
        # Neither host nor process id need be unique: containers share names, and numbers come again after a restart.
        name = f"episodes-{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl" if shared else _SINGLE
        self._directory, self._path = directory, directory / name
        self._shared, self._store, self._max_pixels = shared, images, max_pixels
        (directory / "images").mkdir(parents=True, exist_ok=True)

    def write(self, episode: Episode, **facts: Any) -> None:
        """Append one episode; its images first, so that a line never points at nothing.

        Raises:
            OSError: No room, or no such place any more; nothing that can be read was left behind.
        """
        for message in _messages(episode):
            for image in message.images:
                self._keep(image)
        line = _line({"version": VERSION, **_to_dict(episode), "facts": facts})
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # A kill in the middle of a write leaves half a line; the next line must not be glued to it.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _keep(self, image: ImageFile) -> None:
        folder = self._directory / "images"
        # A training run makes too many images for one folder.
        path = _in_store(folder, image.sha256) if self._shared else folder / image.sha256
        if path.exists() or (self._store is not None and _in_store(self._store, image.sha256).exists()):
            return
        if self._max_pixels is not None:
            try:
                small = preview(image, self._max_pixels)
            except UnreadableImage:
                small = image
            if small is not image:
                path = self._directory / "previews" / image.sha256
                if not path.exists():
                    _write_whole(path, small.data)
                return
        _write_whole(path, image.data)


_SINGLE = "episodes.jsonl"
_OF_WRITERS = "episodes-*.jsonl"


def _in_store(store: Path, sha256: str) -> Path:
    return store / sha256[:2] / sha256


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def image_path(directory: Path, sha256: str) -> Path:
    """Where an image of a recorded episode lies: beside the records, in the run's store, or as a preview.

    Raises:
        FileNotFoundError: Nowhere.
    """
    places = (
        directory / "images" / sha256,
        _in_store(directory / "images", sha256),
        _in_store(directory.parent / "images", sha256),
        directory / "previews" / sha256,
    )
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"no image {sha256} for the episodes in {directory}; expected it in {places[0].parent}")


def record_files(directory: Path) -> list[Path]:
    """The files with episodes of one run, by name; empty if there are none."""
    single = directory / _SINGLE
    return ([single] if single.is_file() else []) + sorted(directory.glob(_OF_WRITERS))


def forget_after(directory: Path, step: int) -> int:
    """Take the records of later training steps away, before a run that was resumed after `step` makes them again.

    Nothing may be writing there. A file is replaced whole or not at all; images are kept, for they may be made again.

    Returns:
        How many records went; 0 if nothing was ever recorded there.
    """
    forgotten = 0
    for path in record_files(directory):
        kept, gone = path.with_name(f"{path.name}.kept"), 0
        with path.open("rb") as lines, kept.open("wb") as file:
            for line in lines:
                if _step_of(line) > step:
                    gone += 1
                else:
                    file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if gone:
            kept.replace(path)
        else:
            kept.unlink()
        forgotten += gone
    return forgotten


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["facts"]["step"])
    except (ValueError, TypeError, KeyError):
        return float("-inf")


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half a surrogate pair, which a model server may send, has no bytes; as an escape it is kept.
        return json.dumps(row).encode() + b"\n"


def _pack(kind: str, values: Sequence[float]) -> str:
    """`i` for ids, `d` for log-probabilities."""
    packed = array.array(kind, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(zlib.compress(packed.tobytes())).decode() if values else ""


def _unpack(kind: str, packed: str | Sequence[float]) -> tuple[Any, ...]:
    if not isinstance(packed, str):
        return tuple(packed)
    values = array.array(kind)
    values.frombytes(zlib.decompress(base64.b64decode(packed)) if packed else b"")
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)


def read_records(directory: Path) -> Iterator[Record]:
    """Episodes in the order they were written, one writer's after the other's; broken lines are left out.

    Raises:
        FileNotFoundError: Nothing was recorded there.
        ValueError: A line was written by a newer version.
    """
    paths = record_files(directory)
    if not paths:
        raise FileNotFoundError(f"no episodes in {directory}; expected {_SINGLE} or {_OF_WRITERS} there")
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                row = parse_line(line, path)
                if row is not None:
                    yield Record(episode_from_row(row, directory), row["facts"])


def parse_line(line: bytes, path: Path) -> dict[str, Any] | None:
    """One line of the file, or None if it is broken.

    Raises:
        ValueError: It was written by a newer version.
    """
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    if row["version"] > VERSION:
        raise ValueError(f"{path} has version {row['version']}, this code reads up to {VERSION}; update it")
    return row


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
        "started_at": round(episode.started_at, 3),
        "wall_s": round(episode.wall_s, 4),
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
        "num_prompt_tokens": turn.reply.num_prompt_tokens,
        "context_ids": _pack("i", turn.reply.context_ids),
        "token_ids": _pack("i", turn.reply.token_ids),
        "logprobs": _pack("d", turn.reply.logprobs),
        "action": described,
        "observation": None if turn.observation is None else _message_to_dict(turn.observation),
        "tool_error": turn.tool_error,
        "at_s": round(turn.at_s, 4),
        "reply_s": round(turn.reply_s, 4),
        "tool_s": round(turn.tool_s, 4),
        "program_s": round(turn.program_s, 4),
        "waited_s": round(turn.waited_s, 4),
    }


def episode_from_row(row: Mapping[str, Any], directory: Path) -> Episode:
    """The episode of a parsed line."""

    def message(saved: Mapping[str, Any]) -> Message:
        files = tuple(ImageFile(image_path(directory, sha256).read_bytes()) for sha256 in saved["images"])
        return Message(saved["role"], saved["text"], files)

    episode = Episode(
        opening=tuple(message(saved) for saved in row["opening"]),
        stop_reason=StopReason(row["stop_reason"]),
        answer=row["answer"],
        failure=row["failure"],
        episode_id=row["episode_id"],
        started_at=row.get("started_at", 0.0),
        wall_s=row.get("wall_s", 0.0),
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
            token_ids=_unpack("i", turn["token_ids"]),
            logprobs=_unpack("d", turn["logprobs"]),
            num_tokens=turn["num_tokens"],
            context_ids=_unpack("i", turn.get("context_ids", "")),
            num_prompt_tokens=turn.get("num_prompt_tokens", 0),
        )
        episode.turns.append(
            Turn(
                reply=reply,
                action=action,
                observation=None if turn["observation"] is None else message(turn["observation"]),
                tool_error=turn["tool_error"],
                at_s=turn.get("at_s", 0.0),
                reply_s=turn["reply_s"],
                tool_s=turn["tool_s"],
                program_s=turn.get("program_s", 0.0),
                waited_s=turn.get("waited_s", 0.0),
            )
        )
    return episode


def tokens(episode: Episode) -> tuple[list[int], list[int], list[float]]:
    """What the model saw and wrote as one stream; empty where its server does not tell ids.

    Returns:
        (ids, mask, log-probabilities), each [num_tokens]; the mask is 1 where the model sampled, and only there a
        log-probability means anything.
    """
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for turn in episode.turns:
        for part, sampled in ((turn.reply.context_ids, 0), (turn.reply.token_ids, 1)):
            ids += part
            mask += [sampled] * len(part)
        logprobs += [0.0] * len(turn.reply.context_ids)
        logprobs += turn.reply.logprobs or [0.0] * len(turn.reply.token_ids)
    return ids, mask, logprobs
