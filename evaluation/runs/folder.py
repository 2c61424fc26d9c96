"""A run's folder: opened once, written whole, read by everybody else.

A run's folder explains itself:
    run.json          what was asked of whom: benchmark, file and its checksum, model, mode, prompt hash, limits, versions
    items.jsonl       the questions with all that scoring needs; images are in the episodes
    episodes.jsonl    one finished episode a line (agent/trajectory.py), with its item
    scores.jsonl      one grade a line; made again from items and episodes at any time, without a model
                      (evaluation/runs/score.py)
    summary.json      totals
    search.json       what searching took and cost, if there was any
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.episode import Episode
from agent.episode_rows import UnreadableRecord
from agent.files import write_whole
from agent.images import UnreadableImage
from agent.records import EpisodeKey, RolloutFacts
from agent.trajectory import Place, RecordReader
from evaluation.benchmarks import Benchmark, Item, nothing_left
from evaluation.errors import BenchmarkError
from evaluation.runs.files import RunMismatch, read_lines
from evaluation.runs.outages import outages_of
from evaluation.runs.provenance import VERSION as PROVENANCE_VERSION
from evaluation.runs.provenance import Provenance, old_names, prompt_sha256, read_provenance, versions, write_provenance
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.grader import Prediction

_log = logging.getLogger(__name__)
_SAID_ROWS = 3


def facts_of(item: Item, benchmark: str, sample: int = 0) -> RolloutFacts:
    """What an evaluation knows of an episode when it is asked; whether it is right is told by its scores."""
    return RolloutFacts(item_id=item.item_id, source=benchmark, category=item.category, gold=item.gold, sample=sample)


def prediction_of(episode: Episode) -> Prediction:
    """What is scored of an episode: its answer; without one, the last reply after its thinking."""
    replies = episode.replies
    full = "\n".join(replies)
    if episode.answer is not None:
        return Prediction(episode.answer, full)
    last = replies[-1] if replies else ""
    return Prediction(last.rpartition("</think>")[2].strip(), full, answered=False)


def is_empty(episode: Episode) -> bool:
    """Whether the server gave no text and counted no token: nothing that a model said."""
    last = episode.turns[-1].reply if episode.turns else None
    return last is not None and not last.text and not last.num_tokens


def open_run(directory: Path, settings: EvaluationSettings, benchmark: Benchmark, data: Path) -> int:
    """Make the folder, or check that it holds the same run. The benchmark's file is read as a whole, images included.

    A row that cannot be used is an item that says so, and that nobody is asked.

    Returns:
        How many items are asked.

    Raises:
        RunMismatch: The message names what differs.
        BenchmarkError: The file is broken, holds nothing, or nothing that can be used.
    """
    items = directory / "items.jsonl"
    if (directory / "run.json").exists():
        known = read_provenance(directory)
        _refuse_another(directory, known, settings)
        if items.exists():
            if data.exists() and (found := checksum(data)) != known.data_md5:
                raise RunMismatch(
                    f"{directory} holds a run over another {data.name} (md5 {known.data_md5} then, {found} now); give "
                    "another --out, or bring the file back"
                )
            return sum(not item.unread for item in read_items(directory).values())
    rows, unread = [], []
    for item in itertools.islice(benchmark.load(data), settings.limit):
        # Answers that were given elsewhere are scored without an image.
        checked = item if item.unread or settings.predictions is not None else _with_whole_images(item, data)
        rows.append(checked.to_json())
        if checked.unread:
            unread.append(checked)
    if not rows:
        raise BenchmarkError(f"{data} holds no items")
    if len(unread) == len(rows):
        raise BenchmarkError(nothing_left(unread))
    _say_unread(data, unread, len(rows))
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(items, "\n".join(rows) + "\n")
    found = checksum(data)
    _warn_if_unpublished(benchmark, data, found)
    provenance = Provenance(
        settings=settings,
        prompt_sha256=prompt_sha256(settings),
        started=time.strftime("%Y-%m-%d %H:%M:%S"),
        data_md5=found,
        versions=versions(),
    )
    write_provenance(directory, provenance)
    return len(rows) - len(unread)


def _with_whole_images(item: Item, data: Path) -> Item:
    """The item; if an image of it is none, or is broken, one that says so."""
    try:
        for image in item.read_images():
            image.check(quickly=True)
    except BenchmarkError as error:
        return replace(item, unread=str(error))
    except (UnreadableImage, OSError) as error:
        return replace(item, unread=f"{data}, item {item.item_id}: {error}")
    return item


def _say_unread(data: Path, unread: Sequence[Item], rows: int) -> None:
    if unread:
        _log.warning(
            "%d of %d rows of %s cannot be used and are not evaluated (scores.jsonl has the reason of each): %s",
            len(unread), rows, data, "; ".join(item.unread for item in unread[:_SAID_ROWS]),
        )  # fmt: skip


def _refuse_another(directory: Path, known: Provenance, settings: EvaluationSettings) -> None:
    if known.version < PROVENANCE_VERSION:
        renamed = "".join(f"; {old} is called {new} now" for old, new in old_names(directory).items())
        raise RunMismatch(
            f"{directory} holds a run whose record has version {known.version}, and this code goes on with version "
            f"{PROVENANCE_VERSION}: it can be scored and looked at; give another --out{renamed}"
        )
    if differs := known.differences(settings):
        raise RunMismatch(f"{directory} holds another run ({', '.join(differs)}); give another --out, or delete it")


def checksum(data: Path) -> str:
    """md5 of the file; empty for a folder."""
    if data.is_dir():
        return ""
    with data.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _warn_if_unpublished(benchmark: Benchmark, data: Path, found: str) -> None:
    published = {md5 for md5 in benchmark.files.values() if md5}
    if found and published and found not in published:
        _log.warning(
            "%s has md5 %s, the published file %s: scores may not compare. `deepeyes data fetch %s` gets the "
            "published one",
            data, found, " or ".join(sorted(published)), benchmark.name,
        )  # fmt: skip


def finished(directory: Path, settings: EvaluationSettings) -> set[EpisodeKey]:
    """Keys of the episodes that nobody asks for any more: committed without an outage, or scored in spite of one."""
    path = directory / "episodes.jsonl"
    if not path.exists():
        return set()
    found = {head.facts.key for _, head in RecordReader(path).heads() if not head.failed}
    return found | set(outages_of(directory, settings).repeated) if settings.repeated_outage == "wrong" else found


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Only one process asks for a run at a time.

    Raises:
        RunMismatch: Another one does.
    """
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunMismatch(f"another process is writing {directory}; wait for it, or give another --out") from error
        yield


def read_items(directory: Path) -> dict[str, Item]:
    """The run's questions by id.

    Raises:
        RunMismatch: There are none, or the file is broken.
    """
    path = directory / "items.jsonl"
    if not path.exists():
        raise RunMismatch(f"{directory} is no run: it has no items.jsonl")
    items = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            item = Item.from_json(line)
        except UnreadableRecord as error:
            raise RunMismatch(f"{path}:{number} is broken ({error}); was it cut off?") from error
        items[item.item_id] = item
    return items


class Latest(Mapping[EpisodeKey, Episode]):
    """Each episode by its key, the last one of a key: one that failed and was repeated counts once.

    Episodes stay on disk until they are asked for: those of a long run would not fit into memory.
    """

    def __init__(self, directory: Path) -> None:
        self._reader = RecordReader(directory / "episodes.jsonl")
        self._places: dict[EpisodeKey, Place] = {}
        if self._reader.path.exists():
            self._places = {head.facts.key: place for place, head in self._reader.heads()}

    @property
    def unreadable(self) -> int:
        """How many lines of the file were left out so far, for they cannot be read."""
        return self._reader.unreadable

    def __getitem__(self, key: EpisodeKey) -> Episode:
        place = self._places[key]
        try:
            return self._reader.at(place.offset).episode
        except UnreadableRecord as error:
            del self._places[key]
            self._reader.leave_out(place, error)
            raise KeyError(key) from error

    def __iter__(self) -> Iterator[EpisodeKey]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
