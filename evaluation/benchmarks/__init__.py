"""One file a benchmark: `evaluation/benchmarks/<name>.py` with `PROMPT`, `load(path)` and `grade(item, episode)`.

The head of each file gives title, authors, link, licence and number of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from agent.episode import Episode
from agent.images import ImageFile
from agent.loading import load_plugin


class BenchmarkError(ValueError):
    """The benchmark's file cannot be used as it stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question. Images are read when asked for, so that a large file is never in memory as a whole."""

    item_id: str
    question: str
    gold: str
    category: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text, for multiple choice."""
    read_images: Callable[[], tuple[ImageFile, ...]] = tuple


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """One answer scored."""

    correct: bool | None
    """None: not evaluated, because of an outage or because nobody could decide. Never counted as wrong."""
    decided_by: str
    extracted: str = ""
    """What was read out of the answer."""


class Benchmark(Protocol):
    """What a benchmark's module offers."""

    PROMPT: str
    """Name in agent/prompts."""
    PROFILE: str
    """Whose scoring rules `grade` follows."""

    def load(self, path: Path) -> Iterator[Item]: ...

    def grade(self, item: Item, episode: Episode) -> Grade: ...


def load_benchmark(name: str) -> Benchmark:
    """Find a benchmark by the name of its file.

    Raises:
        LookupError: There is none; the message lists those that are.
    """
    return cast("Benchmark", load_plugin(__name__, name))
