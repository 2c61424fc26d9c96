"""One file a benchmark: `evaluation/benchmarks/<file>.py` with `BENCHMARKS`, instances of `Benchmark`.

The head of each file gives title, authors, link, licence and number of items, and what is odd about its scoring.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from pydantic import TypeAdapter

from agent.images import ImageFile
from agent.loading import load_plugin, plugin_names
from agent.records import STRICT, validated
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question. Images are read when asked for, so that a large file is never in memory as a whole."""

    item_id: str
    question: str
    """As it is asked, options included."""
    gold: str
    category: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text, for multiple choice."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Other columns of the file that scoring needs."""
    read_images: Callable[[], tuple[ImageFile, ...]] = tuple

    def to_json(self) -> str:
        """All but the images, on one line: with it a run can be scored without the benchmark's file."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return json.dumps({name: dict(value) if isinstance(value, Mapping) else value for name, value in kept.items()})

    @classmethod
    def from_json(cls, line: str) -> Item:
        """The item of `to_json`, without images.

        Raises:
            UnreadableRecord: It is none.
        """
        kept = validated(_ITEM, line.encode("utf-8", "surrogatepass"))
        return cls(**{name: getattr(kept, name) for name in _KEPT})


@dataclass(frozen=True, kw_only=True, slots=True)
class _KeptItem:
    """What is kept of an item."""

    __pydantic_config__ = STRICT

    item_id: str
    question: str
    gold: str
    category: str
    choices: Mapping[str, str]
    fields: Mapping[str, str]


_ITEM = TypeAdapter(_KeptItem)
_KEPT = tuple(one.name for one in fields(_KeptItem))


@dataclass(frozen=True, slots=True)
class Scored:
    """An item with a grade that counts."""

    item: Item
    grade: Grade

    @property
    def score(self) -> float:
        """The score in [0, 1]."""
        assert self.grade.score is not None
        return self.grade.score


class Benchmark(ABC):
    """What a benchmark's file offers."""

    name: ClassVar[str]
    title: ClassVar[str]
    num_items: ClassVar[int]
    files: ClassVar[Mapping[str, str]]
    """Name of the published file -> its md5; empty where none is published. Any other file name is read as well."""
    suite: ClassVar[str]
    """`perception`, `math`, `search`, or empty for none of the paper's."""
    prompt: ClassVar[str] = "deepeyesv2_code"
    """In agent/prompts, for the mode `agent`."""
    tools: ClassVar[tuple[str, ...]] = ("python",)
    headline: ClassVar[str] = "Overall"
    """The one of `scores` that stands in tables."""
    points: ClassVar[bool] = False
    """The headline is a number of points and not a share."""
    needs_judge: ClassVar[bool] = False
    """Without an LLM nothing, or hardly anything, can be decided."""
    note: ClassVar[str] = ""
    """Printed beside every score."""

    @abstractmethod
    def load(self, path: Path) -> Iterator[Item]:
        """Read the published file, item by item.

        Raises:
            BenchmarkError: It is another file, or a row is broken.
        """

    @abstractmethod
    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Score one answer.

        Raises:
            JudgeMisconfigured: The judge refuses every request.
        """

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """The benchmark's own table: name -> share in [0, 1]. All rows were evaluated."""
        return mean_by(rows, lambda row: [row.item.category])


def mean_by(rows: Sequence[Scored], groups: Callable[[Scored], Sequence[str]]) -> dict[str, float]:
    """Mean score over all rows as `Overall`, and of each group that a row names, sorted.

    With several groups, `Macro` is the mean over the groups.
    """
    if not rows:
        return {}
    members: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for group in groups(row):
            if group:
                members[group].append(row.score)
    table = {"Overall": sum(row.score for row in rows) / len(rows)}
    means = {name: sum(values) / len(values) for name, values in sorted(members.items())}
    if len(means) > 1:
        table["Macro"] = sum(means.values()) / len(means)
    return table | means


def given(images: tuple[ImageFile, ...]) -> Callable[[], tuple[ImageFile, ...]]:
    """`read_images` for images that are there already."""
    return lambda: images


@functools.cache
def benchmarks() -> Mapping[str, Benchmark]:
    """All benchmarks on disk, by name."""
    found: dict[str, Benchmark] = {}
    for name in plugin_names(__name__):
        for benchmark in load_plugin(__name__, name).BENCHMARKS:
            if benchmark.name in found:
                raise ValueError(f"two benchmarks are called {benchmark.name!r}")
            found[benchmark.name] = benchmark
    return dict(sorted(found.items()))


def load_benchmark(name: str) -> Benchmark:
    """Find a benchmark by its name.

    Raises:
        LookupError: There is none; the message lists those that are.
    """
    found = benchmarks()
    if name not in found:
        raise LookupError(f"no benchmark {name!r}; there are: {', '.join(found)}")
    return found[name]
