"""Score what another harness predicted: a file of answers becomes a run, as if they had been asked for here.

VLMEvalKit's prediction files as TSV (`index`, `prediction`), and lmms-eval's samples (`doc_id` or `doc.index`,
`filtered_resps` or `resps`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.episode import Episode, StopReason, Turn
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.policy import Reply
from agent.protocol import FinalAnswer
from agent.records import EpisodeKey
from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import Item
from evaluation.errors import BenchmarkError
from evaluation.runs.files import read_lines
from evaluation.runs.folder import facts_of, finished, locked
from evaluation.tables.tsv import raw_rows


def read_predictions(path: Path) -> dict[str, str]:
    """Item id -> answer.

    Raises:
        BenchmarkError: The file is missing, broken or cut off, or answers an item twice.
    """
    rows = _lines(path) if path.suffix == ".jsonl" else _tsv(path)
    found: dict[str, str] = {}
    for place, item_id, text in rows:
        if item_id in found:
            raise BenchmarkError(f"{place}: item {item_id!r} was answered before")
        found[item_id] = text
    if not found:
        raise BenchmarkError(f"{path} holds no predictions")
    return found


def _tsv(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, values in raw_rows(path, ("prediction",)):
        yield f"{path}, row {number}", values["index"], values["prediction"]


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    if not path.is_file():
        raise BenchmarkError(f"no file {path}")
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
            item_id = str((row.get("doc") or {}).get("index", row.get("doc_id")))
            said = row.get("filtered_resps") or row["resps"]
        except (ValueError, KeyError, AttributeError) as error:
            raise BenchmarkError(f"{place} is no sample of lmms-eval ({error!r}); was the file cut off?") from error
        while isinstance(said, list) and said:
            said = said[0]
        yield place, item_id, str(said)


def import_predictions(directory: Path, items: Mapping[str, Item], path: Path, *, benchmark: str) -> int:
    """Write the answers as episodes of an opened run; items without one stay "not run".

    Returns:
        How many items were answered.

    Raises:
        BenchmarkError: The file is broken, or answers items that the benchmark does not have.
    """
    predictions = read_predictions(path)
    unknown = [item_id for item_id in predictions if item_id not in items]
    if unknown:
        raise BenchmarkError(
            f"{path} answers {len(unknown)} items that the benchmark does not have, such as {unknown[0]!r}; is it another "
            "benchmark's?"
        )
    with locked(directory):
        done, writer = finished(directory), TrajectoryWriter(directory)
        for item_id, text in predictions.items():
            if EpisodeKey(item_id) not in done:
                writer.write(_episode(items[item_id], text), facts_of(items[item_id], benchmark))
    return len(predictions)


def _episode(item: Item, text: str) -> Episode:
    """A single reply. That tokens are not known is told by a count of one: an answer was given."""
    turn = Turn(reply=Reply(text=text, finish="stop", num_tokens=1), action=FinalAnswer(text))
    opening = (Message("user", item.question.replace(IMAGE_PLACEHOLDER, "[image]")),)
    return Episode(opening=opening, turns=[turn], end=StopReason.ANSWERED, answer=text)
