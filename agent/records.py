"""What a line of a recording says: an episode, and what is known about it. agent/trajectory.py writes and reads the files.

A line of version 3 begins with its head, which is all that lists, indexes and resumes need. The head's length is told, so
that it is read without parsing what follows, and a checksum of the rest, so that damage to it is seen all the same:

    {"version": 3, "head_bytes":      412, "crc32": 2774829114, "facts": {…}, …, "opening": […], "turns": […]}

A line that does not fit its numbers, because somebody has edited it, is parsed as a whole. Versions 1 and 2 had neither, and
their facts had other names; they are read as if they were of today.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.episode import Episode, StopReason
from agent.episode_rows import NewerRecord, UnreadableRecord, ended_as, episode_from_row, message_to_row, turn_to_row
from agent.images import ImageFile
from agent.lines import MOST_VALUES, too_many_values
from agent.protocol import ToolCall
from code_sandbox.redaction import redacted

VERSION = 3
_T = TypeVar("_T")
STRICT = ConfigDict(extra="forbid", strict=True)
"""How records are read: a name that nobody knows, or a value of another type, is an error and never guessed at."""


class EpisodeKey(NamedTuple):
    """Which episode of a run: the same item may be asked several times."""

    item_id: str
    sample: int = 0

    def __str__(self) -> str:
        return self.item_id if self.sample == 0 else f"{self.item_id}#{self.sample}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutFacts:
    """What is known of an episode besides what happened in it; training, evaluation and chat use the same names."""

    __pydantic_config__ = STRICT

    item_id: str = ""
    """The question's name in its data; empty where it has none, as in a chat."""
    source: str = ""
    """Where the item is from: a data source of RL, a benchmark, or `chat`."""
    category: str = ""
    """The item's kind within its source."""
    question: str = ""
    """As it was typed, where there is no data to look it up in."""
    gold: str = ""
    """The accepted answers, joined by ` or `."""
    sample: int = 0
    """Which of the item's episodes, from 0: a rollout's place in its group, or a sample of an evaluation."""
    step: int | None = None
    """Of training; -1 where the trainer did not tell."""
    group: str = ""
    """Of training: the rollouts whose rewards are compared."""
    validation: bool = False
    """Of training: it was played to measure, and nothing was learned from it."""
    restarts: int = 0
    """Attempts before this one, which an outage of the sandbox ended."""
    correct: bool | None = None
    """Whether the answer is right; None where nobody decided, or has not decided yet."""
    score: float | None = None
    """The answer's credit in [0, 1]; between the ends where half an answer gets some."""
    reward: float | None = None
    """What training maximises."""
    format: float | None = None
    """The part of the reward that is for the format, in [0, 1] before it is weighted."""
    bonus: float = 0.0
    cost: float = 0.0
    decided_by: str = ""
    """`rule:<name>`, `judge:<model>`, or `nobody`."""
    second_opinion: str = ""
    """What an LLM judge said that was asked for the record only."""

    @property
    def key(self) -> EpisodeKey:
        """Which episode of its run or step it is."""
        return EpisodeKey(self.item_id, self.sample)

    def named(self) -> dict[str, str | float | bool]:
        """Those that say something: by name, without the ones that are as by default."""
        return {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}


_DEFAULTS = {one.name: one.default for one in fields(RolloutFacts)}


@dataclass(frozen=True, slots=True)
class Rollout:
    """An episode with what is known about it."""

    episode: Episode
    facts: RolloutFacts = field(default_factory=RolloutFacts)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutHead:
    """What is known of a recorded episode without reading it."""

    __pydantic_config__ = STRICT

    facts: RolloutFacts
    episode_id: str
    stop_reason: StopReason
    answer: str | None
    failure: str
    started_at: float
    """Unix time, in seconds."""
    wall_s: float
    num_turns: int
    tools: tuple[str, ...]
    """The tool of each call, in order."""
    tool_errors: int
    num_tokens: int
    """That the model wrote."""

    def __post_init__(self) -> None:
        ended_as(self.stop_reason, self.failure)

    @property
    def failed(self) -> bool:
        """Whether an outage of ours ended it."""
        return self.stop_reason is StopReason.FAILED


_HEAD_NAMES = tuple(one.name for one in fields(RolloutHead))
_HEAD = TypeAdapter(RolloutHead)
_FACTS = TypeAdapter(RolloutFacts)
_PREFIX = b'{"version": 3, "head_bytes": %8d, "crc32": %10d, '
_NUMBERS = re.compile(rb'\{"version": 3, "head_bytes": +(\d+), "crc32": +(\d+), ')


def head_of(rollout: Rollout) -> RolloutHead:
    """The head of a rollout."""
    episode = rollout.episode
    return RolloutHead(
        facts=rollout.facts,
        episode_id=episode.episode_id,
        stop_reason=episode.stop_reason,
        answer=episode.answer,
        failure=episode.failure and redacted(episode.failure),
        started_at=round(episode.started_at, 3),
        wall_s=round(episode.wall_s, 4),
        num_turns=len(episode.turns),
        tools=tuple(turn.action.name for turn in episode.turns if isinstance(turn.action, ToolCall)),
        tool_errors=episode.tool_errors,
        num_tokens=episode.num_tokens,
    )


# ---- writing ----


def to_line(rollout: Rollout) -> bytes:
    """A rollout as a line of version 3, its end included; images by name.

    Raises:
        UnreadableRecord: A fact is of another type than its name wants, and could not be read again.
    """
    head = head_of(rollout)
    told = {name: getattr(head, name) for name in _HEAD_NAMES} | {"facts": head.facts.named()}
    episode = rollout.episode
    body = {
        "opening": [message_to_row(message) for message in episode.opening],
        "turns": [turn_to_row(turn) for turn in episode.turns],
    }
    text = _bytes(told)
    validated(_HEAD, text)
    first, rest = text[1:-1], b", " + _bytes(body)[1:] + b"\n"
    return _PREFIX % (len(_PREFIX % (0, 0)) + len(first), zlib.crc32(first + rest)) + first + rest


def _bytes(row: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which a model server may send, has no bytes; as an escape it is kept.
        return json.dumps(row).encode()


# ---- reading ----


def parse_head(line: bytes) -> RolloutHead:
    """The head of a line.

    Raises:
        UnreadableRecord: It is no record.
        NewerRecord: A newer version wrote it.
    """
    head = _undamaged_head(line)
    if head is not None:
        return validated(_HEAD, head)
    row = _row(line)
    if row["version"] < VERSION:
        return _shaped(lambda: _old_head(row))
    _shaped(lambda: episode_from_row(row, lambda sha256: ImageFile(sha256.encode())))
    return _edited_head(row)


def _undamaged_head(line: bytes) -> bytes | None:
    """The JSON of the head, if the line is as it was written."""
    numbers = _NUMBERS.match(line)
    if numbers is None or int(numbers[2]) != zlib.crc32(memoryview(line)[numbers.end() :]):
        return None
    return b"{" + line[numbers.end() : int(numbers[1])] + b"}"


def _edited_head(row: Mapping[str, Any]) -> RolloutHead:
    return validated(_HEAD, json.dumps({name: row[name] for name in _HEAD_NAMES if name in row}).encode())


def parse_rollout(line: bytes, image: Callable[[str], ImageFile]) -> Rollout:
    """The whole rollout of a line.

    Args:
        line: Of any version.
        image: Finds an image by the SHA-256 of its bytes.

    Raises:
        UnreadableRecord: It is no record.
        NewerRecord: A newer version wrote it.
    """
    row, head = _row(line), _undamaged_head(line)
    if row["version"] < VERSION:
        facts = _shaped(lambda: _old_facts(row.get("facts") or {}))
    else:
        facts = (_edited_head(row) if head is None else validated(_HEAD, head)).facts
    return Rollout(_shaped(lambda: episode_from_row(row, image)), facts)


def validated(kind: TypeAdapter[_T], text: bytes) -> _T:
    """A typed object out of JSON.

    Raises:
        UnreadableRecord: It is no JSON, or says something else.
    """
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        whole = _without_half_pairs(text)
        if whole != text:
            return validated(kind, whole)
        raise UnreadableRecord(reason_of(error)) from error


def reason_of(error: ValidationError) -> str:
    """What is wrong, on one line: each place and its trouble."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"]))) for one in error.errors(include_url=False)[:3]
    )


_HALF_PAIR = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def _without_half_pairs(text: bytes) -> bytes:
    """Halves of surrogate pairs, which can be escaped in JSON and stand in no text, as question marks."""
    if not _HALF_PAIR.search(text):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _row(line: bytes) -> dict[str, Any]:
    """A line of any version, parsed."""
    if too_many_values(line):
        raise UnreadableRecord(f"it holds more than {MOST_VALUES:,} values")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"no JSON: {error}") from error
    version = row.get("version") if isinstance(row, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UnreadableRecord(f"no record of an episode: its version is {version!r}, those of 1 to {VERSION} are known")
    if version > VERSION:
        raise NewerRecord(f"it has version {version}, this code reads up to {VERSION}; update it")
    assert isinstance(row, dict)
    if version < VERSION and row.get("stop_reason") == StopReason.FAILED.value:
        row["failure"] = row.get("failure") or "no reason was recorded"  # what today's records never lack
    return row


def _shaped(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except UnreadableRecord:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, zlib.error) as error:
        raise UnreadableRecord(f"{type(error).__name__}: {error}") from error


_OLD_NAMES = {"data_source": "source", "kind": "category", "session": "sample"}
_OLD_FLOATS = ("reward", "format", "bonus", "cost")


def _old_head(row: Mapping[str, Any]) -> RolloutHead:
    """The head of versions 1 and 2, which had none, counted out of what they hold."""
    turns = row["turns"]
    return RolloutHead(
        facts=_old_facts(row.get("facts") or {}),
        episode_id=row["episode_id"],
        stop_reason=StopReason(row["stop_reason"]),
        answer=row["answer"],
        failure=row["failure"],
        started_at=row.get("started_at", 0.0),
        wall_s=row.get("wall_s", 0.0),
        num_turns=len(turns),
        tools=tuple(turn["action"]["tool"] for turn in turns if "tool" in turn["action"]),
        tool_errors=sum(bool(turn["tool_error"]) for turn in turns),
        num_tokens=sum(turn["num_tokens"] for turn in turns),
    )


def _old_facts(saved: Mapping[str, Any]) -> RolloutFacts:
    """Facts of versions 1 and 2 under today's names; `accuracy` was 1.0 for right and 0.0 for wrong."""
    named = {_OLD_NAMES.get(name, name): value for name, value in saved.items() if value is not None}
    accuracy = named.pop("accuracy", named.pop("correct", None))
    known: dict[str, Any] = {name: named[name] for name in _DEFAULTS if name in named}
    known |= {name: float(known[name]) for name in _OLD_FLOATS if name in known}
    if accuracy is not None:
        known |= {"score": float(accuracy), "correct": float(accuracy) == 1.0}
    return validated(_FACTS, json.dumps(known).encode())
