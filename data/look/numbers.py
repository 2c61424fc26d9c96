"""Counting rows of training files: sources, lengths, images, tools, duplicates, broken ones."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.chat_formats import format_of
from agent.images import ImageRule, UnreadableImage
from agent.protocol import FinalAnswer, ToolCall, parse_action
from agent.recipes import shared_value
from data.look.files import RowsFile
from data.look.rows import WHOLE_FILE, LookedRow, LookOptions, RowProblem, in_threads, rows_of
from data.look.schemas import schema_differences, schema_of

_FAMILY = "qwen2_5_vl"
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class _ImageFacts:
    """What the header of an image says."""

    pixels: int
    tokens: int
    is_question: bool


@dataclass(frozen=True, slots=True)
class _RowFacts:
    """What is counted of a row; its images are not held."""

    row: LookedRow
    images: tuple[_ImageFacts, ...]
    digest: bytes
    """Of its question and the question's images."""
    tools: tuple[str, ...]
    """One a call, in order; `answer` and `no action` are none."""
    answers: int
    malformed: int
    problems: tuple[RowProblem, ...]


@dataclass(slots=True)
class _Images:
    """Images of one kind."""

    pixels: array[int] = field(default_factory=lambda: array("q"))
    tokens: array[int] = field(default_factory=lambda: array("q"))

    def told(self) -> dict[str, Any]:
        return {
            "count": len(self.pixels),
            "pixels": quantiles(self.pixels),
            "tokens": {**quantiles(self.tokens), "sum": sum(self.tokens)},
        }


@dataclass(slots=True)
class _Counts:
    """All that is counted."""

    rows: Counter[str] = field(default_factory=Counter)
    data_sources: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    prompt_chars: array[int] = field(default_factory=lambda: array("q"))
    gold_chars: array[int] = field(default_factory=lambda: array("q"))
    turns: array[int] = field(default_factory=lambda: array("q"))
    question: _Images = field(default_factory=_Images)
    tool: _Images = field(default_factory=_Images)
    with_images: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    """Rows that call each tool; `none` calls none."""
    answers: int = 0
    malformed: int = 0
    first: dict[bytes, str] = field(default_factory=dict)
    duplicates: int = 0
    duplicate_examples: list[str] = field(default_factory=list)
    broken: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    problem_examples: dict[str, str] = field(default_factory=dict)


def statistics(files: Sequence[RowsFile], options: LookOptions) -> dict[str, Any]:
    """Numbers about files, as JSON has them; images are measured by their headers, and not decoded.

    Those of a store's sets, whose rows tell their sizes, are not read at all.

    Args:
        files: Of `data_files`.
        options: Where images lie.
    """
    rule = format_of(_FAMILY).image_rule(int(shared_value("image_max_pixels")))
    counts = _Counts()
    schemas = {str(file.path): schema_of(file) for file in files}
    by_file = []
    for file in files:
        before = sum(counts.rows.values())
        for facts in in_threads(partial(_facts, rule=rule), rows_of(file, replace(options, believe_sizes=True))):
            _count(counts, facts)
        by_file.append({
            "file": str(file.path), "kind": file.kind, "rows": sum(counts.rows.values()) - before,
            "bytes": file.path.stat().st_size, "schema": schemas[str(file.path)],
        })  # fmt: skip
    return {"files": by_file, "schema_differences": schema_differences(schemas), **_told(counts)}


def quantiles(values: Iterable[int]) -> dict[str, int]:
    """Median, 99th percentile and maximum, by nearest rank; 0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": 0, "p99": 0, "max": 0}
    return {name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] for name, part in _PARTS.items()}


_PARTS = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def _facts(row: LookedRow, rule: ImageRule) -> _RowFacts:
    digest = hashlib.sha256(f"{row.kind} {row.question}".encode("utf-8", "replace"))
    images: list[_ImageFacts] = []
    problems = list(row.problems)
    for number, image in enumerate(row.images):
        is_question = number < row.question_images
        if is_question:
            digest.update(bytes.fromhex(image.sha256))
        try:
            wide, high = image.size
            images.append(_ImageFacts(wide * high, rule.num_tokens(wide, high), is_question))
        except (UnreadableImage, ValueError) as error:
            told = f"image {number + 1} of {len(row.images)}: {error}"
            problems.append(RowProblem(row.file, row.row, "image is broken", told))
    actions = [parse_action(one["content"]) for one in row.messages if one["role"] == "assistant"]
    return _RowFacts(
        row=_without_images(row),
        images=tuple(images),
        digest=digest.digest(),
        tools=tuple(action.name for action in actions if isinstance(action, ToolCall)),
        answers=sum(isinstance(action, FinalAnswer) for action in actions),
        malformed=sum(not isinstance(action, ToolCall | FinalAnswer) for action in actions),
        problems=tuple(problems),
    )


def _without_images(row: LookedRow) -> LookedRow:
    return LookedRow(
        file=row.file, row=row.row, kind=row.kind, messages=row.messages, gold=row.gold, data_source=row.data_source,
        source=row.source,
    )  # fmt: skip


def _count(counts: _Counts, facts: _RowFacts) -> None:
    row = facts.row
    for problem in facts.problems:
        counts.problems[problem.kind] += 1
        counts.problem_examples.setdefault(problem.kind, str(problem))
    if row.row == WHOLE_FILE:
        return
    counts.rows[row.kind] += 1
    counts.broken += bool(facts.problems)
    if row.kind == "rl":
        counts.data_sources[row.data_source or "(none)"] += 1
    counts.sources[row.source or "(not named)"] += 1
    if not row.messages:
        return
    counts.prompt_chars.append(sum(len(one["content"]) for one in row.messages if one["role"] != "assistant"))
    counts.gold_chars.extend(len(one) for one in row.gold)
    counts.with_images[row.kind] += bool(facts.images)
    for image in facts.images:
        kind = counts.question if image.is_question else counts.tool
        kind.pixels.append(image.pixels)
        kind.tokens.append(image.tokens)
    if row.kind == "sft":
        counts.turns.append(sum(one["role"] == "assistant" for one in row.messages))
        counts.calls.update(facts.tools)
        counts.users.update(set(facts.tools) or {"none"})
        counts.answers += facts.answers
        counts.malformed += facts.malformed
    if facts.digest in counts.first:
        counts.duplicates += 1
        if len(counts.duplicate_examples) < _EXAMPLES:
            counts.duplicate_examples.append(f"{row.file}, row {row.row} is {counts.first[facts.digest]}")
    else:
        counts.first[facts.digest] = f"{row.file}, row {row.row}"


def _told(counts: _Counts) -> dict[str, Any]:
    conversations = counts.rows["sft"]
    return {
        "rows": sum(counts.rows.values()),
        "rl_rows": counts.rows["rl"],
        "conversations": conversations,
        "data_sources": dict(counts.data_sources.most_common()),
        "sources": dict(counts.sources.most_common()),
        "prompt_chars": quantiles(counts.prompt_chars),
        "gold_chars": quantiles(counts.gold_chars),
        "turns": quantiles(counts.turns),
        "rl_rows_with_images": counts.with_images["rl"],
        "conversations_with_images": counts.with_images["sft"],
        "question_images": counts.question.told(),
        "tool_images": counts.tool.told(),
        "image_rule": f"tokens as {_FAMILY} takes them, at most {int(shared_value('image_max_pixels')):,} pixels",
        "tools": {
            name: {"conversations": number, "calls": counts.calls[name]} for name, number in counts.users.most_common()
        },
        "answers": counts.answers,
        "turns_without_action": counts.malformed,
        "duplicates": {"rows": counts.duplicates, "examples": counts.duplicate_examples},
        "broken": {
            "rows": counts.broken,
            "kinds": {
                kind: {"number": number, "example": counts.problem_examples[kind]}
                for kind, number in counts.problems.most_common()
            },
        },
    }
