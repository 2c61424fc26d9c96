"""The runs that are open, each by a short name that stands in the addresses of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viewer.episode import find_tokenizer
from viewer.index import EpisodeIndex, find_records

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class OpenRun:
    """One of them."""

    key: str
    """Its name in addresses, which lasts as long as its folder is called so; without a slash."""
    title: str
    """Its folder, as it was given."""
    index: EpisodeIndex
    tokenizer: Tokenizer | None

    @property
    def directory(self) -> Path:
        """With the records."""
        return self.index.directory


class OpenRuns:
    """All of them, in the order in which they were given.

    Args:
        directories: Runs, or folders with one run in them.
        tokenizer: Folder of a model, to show tokens as text; by default that of the run's recipe.

    Raises:
        FileNotFoundError, ValueError: A folder holds no run, or several.
    """

    def __init__(self, directories: Sequence[Path], tokenizer: Path | None = None) -> None:
        self._runs: dict[str, OpenRun] = {}
        for key, directory in zip(run_keys(directories), directories, strict=True):
            index = EpisodeIndex(find_records(directory))
            self._runs[key] = OpenRun(key, str(directory), index, find_tokenizer(index.directory, tokenizer))

    def __iter__(self) -> Iterator[OpenRun]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, key: str) -> OpenRun:
        try:
            return self._runs[key]
        except KeyError:
            raise LookupError(f"no run {key[:200]!r} is open here; there are {', '.join(self._runs)}") from None


def run_keys(directories: Sequence[Path]) -> list[str]:
    """The last parts of each path that tell it from the others, joined by `~`; one that is given twice gets a number."""
    parts = [[part for part in directory.resolve().parts if part != "/"] or ["run"] for directory in directories]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        keys = ["~".join(one[-depth:]) for one in parts]
        if len(set(keys)) == len(keys):
            return keys
    return [f"{one[-1]}~{number}" for number, one in enumerate(parts, start=1)]
