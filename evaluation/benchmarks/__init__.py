"""One file a benchmark: `evaluation/benchmarks/<file>.py` with `BENCHMARKS`, instances of `Benchmark`.

The head of each file gives title, authors, link, licence and number of items, and what is odd about its scoring.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from pydantic import TypeAdapter

from agent.images import ImageFile
from agent.loading import load_plugin, plugin_names
from agent.records import STRICT, validated
from evaluation.errors import BenchmarkError
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
    unread: str = ""
    """Why its row cannot be used, if it cannot: then it is never asked, and counted as not evaluated."""
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
    unread: str = ""


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
        """Read the published file, item by item; `items_of` makes of a row that cannot be read an item that says so.

        Raises:
            BenchmarkError: It is another file, or none of its rows can be read.
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


class TableRow(Protocol):
    """A row of any table: `Row` and `Entry` of evaluation/tables."""

    @property
    def place(self) -> str: ...

    @property
    def item_id(self) -> str: ...

    @property
    def problem(self) -> str: ...


RowT = TypeVar("RowT", bound=TableRow)
_ODD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What a value raises that is of another kind than the columns of its benchmark; BenchmarkError is a ValueError."""


def items_of(rows: Iterable[RowT], make: Callable[[RowT], Item]) -> Iterator[Item]:
    """The item of each row. One that cannot be read is one that says why, and that nobody is asked.

    Args:
        rows: Of a table, in order.
        make: Raises BenchmarkError, with the row's place, if it lacks what the benchmark needs.

    Raises:
        BenchmarkError: No row can be read, or two rows are called the same.
    """
    seen: dict[str, str] = {}
    unread: list[Item] | None = []
    for row in rows:
        item = _read(row, make)
        if item.unread and item.item_id in seen:
            item = replace(item, item_id=Path(row.place).name)
        if item.item_id in seen:
            raise BenchmarkError(f"{row.place} is called {item.item_id!r}, as {seen[item.item_id]} was before")
        seen[item.item_id] = row.place
        if unread is not None and item.unread:
            unread.append(item)
            continue
        yield from unread or ()
        unread = None
        yield item
    if unread:
        raise BenchmarkError(nothing_left(unread))


def _read(row: RowT, make: Callable[[RowT], Item]) -> Item:
    try:
        if row.problem:
            raise BenchmarkError(f"{row.place}: {row.problem}")
        return make(row)
    except BenchmarkError as error:
        problem = str(error)
    except _ODD as error:
        problem = f"{row.place} is of another form: {type(error).__name__}: {error}"
    return Item(item_id=row.item_id, question="", gold="", unread=problem)


def nothing_left(unread: Sequence[Item]) -> str:
    """What is said of a file none of whose rows can be used."""
    also = f" (and {len(unread) - 1} more rows like it: there is none that can be used)" if len(unread) > 1 else ""
    return unread[0].unread + also


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
