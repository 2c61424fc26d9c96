"""The runs that can be looked at, each by a short name that stands in the addresses of the page."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.trajectory import record_files
from viewer.advantages import AdvantageRule, advantage_rule
from viewer.episode import find_tokenizer
from viewer.filters import asked_filters
from viewer.index import EpisodeIndex, find_records, find_runs
from viewer.words import Words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LOOK_EVERY_S = 5.0
READ_S = 0.5
"""How long a question of the page may take to index what was appended; the next one goes on."""


class OpenRun:
    """One that is looked at.

    Args:
        directory: With the records.
        tokenizer: See `OpenRuns`.
    """

    def __init__(self, directory: Path, tokenizer: Path | None) -> None:
        self.directory = directory
        self.index = EpisodeIndex(directory, within_s=READ_S)
        self.words = Words(self.index)
        self._given = tokenizer

    def asked(self, query: Mapping[str, str]) -> dict[str, str]:
        """The filters in a query, after a moment in which words are read that they need."""
        filters = asked_filters(query)
        if filters.keys() & {"find", "reason"}:
            self.words.follow(wait_s=READ_S)
        return filters

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """See `find_tokenizer`."""
        return find_tokenizer(self.directory, self._given)

    @functools.cached_property
    def rule(self) -> AdvantageRule:
        """How its advantages follow from its rewards."""
        return advantage_rule(self.directory)


@dataclass(frozen=True, slots=True)
class FoundRun:
    """One that may be looked at."""

    key: str
    """Its name in addresses, which lasts as long as its folder is called so; without a slash."""
    title: str
    """Its folder."""
    directory: Path
    """With the records."""

    @property
    def num_bytes(self) -> int:
        """The size of its records, without images."""
        return sum(path.stat().st_size for path in record_files(self.directory))

    @property
    def written_at(self) -> float:
        """Unix time, in seconds, of the last record."""
        return max((path.stat().st_mtime for path in record_files(self.directory)), default=0.0)


class OpenRuns:
    """All of them: one, two to be seen side by side, or those of a folder. A run is opened when it is first asked for.

    Args:
        directories: One folder with any number of runs in it, or two with one run each.
        tokenizer: Folder of a model, to show tokens as text; by default that of the run's recipe.

    Raises:
        FileNotFoundError, ValueError: A folder holds no run, or of two folders one holds several.

    Attributes:
        given: Those that were given one by one; empty where it is a folder of many.
    """

    def __init__(self, directories: Sequence[Path], tokenizer: Path | None = None) -> None:
        if not 1 <= len(directories) <= 2:
            raise ValueError(f"{len(directories)} runs given; expected one, or two to see them side by side")
        if tokenizer is not None:
            find_tokenizer(directories[0], tokenizer)  # one that is not there is said at once
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._open: dict[str, OpenRun] = {}
        self._folder = directories[0]
        self._looked_at, self._seen = -math.inf, list[FoundRun]()
        self.given: list[FoundRun] = []
        if len(directories) == 2 or len(find_runs(self._folder)) == 1:
            keys = run_keys(directories)
            self.given = [FoundRun(key, str(one), find_records(one)) for key, one in zip(keys, directories, strict=True)]

    def found(self) -> list[FoundRun]:
        """Those that are there by now; a folder is looked through no more often than every few seconds."""
        if self.given:
            return self.given
        if time.monotonic() - self._looked_at > _LOOK_EVERY_S:
            runs = [(path.relative_to(self._folder), path) for path in find_runs(self._folder)]
            self._seen = [FoundRun("~".join(name.parts), str(name), path) for name, path in runs]
            self._looked_at = time.monotonic()
        return self._seen

    def is_open(self, key: str) -> bool:
        """Whether a run was asked for before."""
        return key in self._open

    @property
    def num_open(self) -> int:
        """How many were asked for."""
        return len(self._open)

    def __getitem__(self, key: str) -> OpenRun:
        """The run of a name.

        Raises:
            LookupError: There is none.
        """
        with self._lock:
            if key not in self._open:
                found = {run.key: run for run in self.found()}
                if key not in found:
                    raise LookupError(f"no run {key[:200]!r} is here; there are {', '.join(list(found)[:20])}")
                self._open[key] = OpenRun(found[key].directory, self._tokenizer)
            return self._open[key]


def run_keys(directories: Sequence[Path]) -> list[str]:
    """The last parts of each path that tell it from the others, joined by `~`; one that is given twice gets a number."""
    parts = [[part for part in directory.resolve().parts if part != "/"] or ["run"] for directory in directories]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        keys = ["~".join(one[-depth:]) for one in parts]
        if len(set(keys)) == len(keys):
            return keys
    return [f"{one[-1]}~{number}" for number, one in enumerate(parts, start=1)]
