"""What an evaluation says of each of its episodes, as far as whoever shows them has to know it.

`scores.jsonl` lies beside `episodes.jsonl` and is made anew at any time; all that its rows hold: evaluation/runs/rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from agent.episode_rows import NewerRecord, UnreadableRecord
from agent.lines import bounded_lines
from agent.records import EpisodeKey, validated
from agent.trajectory import say_unreadable

SCORES_VERSION = 2
"""1 had no version in its rows, and calls as lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeScore:
    """Whether one episode's answer is right."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)

    item_id: str
    sample: int = 0
    correct: bool | None
    """None: not evaluated, and in no mean."""
    score: float | None = None
    """Credit in [0, 1]; None if not evaluated."""
    version: int = 1

    @property
    def key(self) -> EpisodeKey:
        """Which episode it is of."""
        return EpisodeKey(self.item_id, self.sample)


_SCORE = TypeAdapter(EpisodeScore)


def read_episode_scores(path: Path) -> Iterator[EpisodeScore]:
    """The scores of a file; unreadable lines are said and left out.

    Raises:
        NewerRecord: A newer version wrote it.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(bounded_lines(lines), start=1):
            if line.text is None:
                say_unreadable(path, number, line.problem)
                continue
            if not line.text.strip():
                continue
            try:
                row = validated(_SCORE, line.text)
            except UnreadableRecord as error:
                say_unreadable(path, number, str(error))
                continue
            if row.version > SCORES_VERSION:
                raise NewerRecord(f"{path} has version {row.version}, this code reads up to {SCORES_VERSION}; update it")
            yield row
