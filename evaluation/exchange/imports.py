"""A file of another harness's answers becomes a run, to be scored as if they had been asked for here.

What is no answer of a model, such as an empty cell or a harness's own mark of a failure, becomes an episode that failed: it
is not evaluated, with its reason, and never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.episode import Ended, Episode, Outage, StopReason, Turn
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, Malformed
from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import Item
from evaluation.errors import BenchmarkError
from evaluation.exchange.contradictions import check_items
from evaluation.exchange.predictions import Predicted, read_predictions
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import Latest, checksum, facts_of, locked
from evaluation.runs.provenance import read_provenance, write_provenance


def import_predictions(directory: Path, items: Mapping[str, Item], path: Path) -> int:
    """Write the answers as episodes of an opened run; items without one stay "not run".

    The file's checksum is kept in `run.json` once all of it was found fit, so that a run is of one file.

    Returns:
        How many items the file answers.

    Raises:
        BenchmarkError: The file is broken, or does not fit the items.
        RunMismatch: The run was made of another file.
    """
    provenance = read_provenance(directory)
    settings = provenance.settings
    _refuse_another_file(directory, path, provenance.predictions_md5)
    predictions = read_predictions(path)
    check_items(path, predictions, items)
    beyond = [one.place for one in predictions if one.sample >= settings.samples]
    if beyond:
        most = 1 + max(one.sample for one in predictions)
        raise BenchmarkError(f"{beyond[0]} is a further sample of its item; give --samples {most}, in a new --out")
    with locked(directory):
        write_provenance(directory, provenance.model_copy(update={"predictions_md5": checksum(path)}))
        done, writer = frozenset(Latest(directory)), TrajectoryWriter(directory)
        for one in predictions:
            if one.key not in done:
                item = items[one.item_id]
                writer.write(_episode(item, one), facts_of(item, settings.benchmark, one.sample))
    return len(predictions)


def _refuse_another_file(directory: Path, path: Path, known: str) -> None:
    if not path.is_file():
        raise BenchmarkError(f"no file {path}")
    found = checksum(path)
    if known and known != found:
        raise RunMismatch(
            f"{directory} holds what {path} was before it changed (md5 {known} then, {found} now); give another --out, or "
            "bring the file back"
        )
    if not known and Latest(directory):
        raise RunMismatch(
            f"{directory} was made of {path} when its checksum was not kept yet: nobody knows whether it has changed; give "
            "another --out"
        )


def _episode(item: Item, one: Predicted) -> Episode:
    opening = (Message("user", item.question.replace(IMAGE_PLACEHOLDER, "[image]")),)
    if one.why_none:
        return Episode(opening=opening, end=Outage(reason=one.why_none))
    end, text = _end(one.stop_reason), one.answer
    reply = one.reply or one.written or text
    if end is StopReason.ANSWERED:
        turn = Turn(reply=Reply(text=reply, finish="stop"), action=FinalAnswer(text))
        return Episode(opening=opening, turns=[turn], end=end, answer=text)
    # What is scored of such an episode is its last reply.
    replies = [reply, text] if text and text != reply else [reply]
    turns = [Turn(reply=Reply(text=part, finish="stop"), action=Malformed("imported")) for part in replies]
    return Episode(opening=opening, turns=turns, end=end)


def _end(stop_reason: str) -> Ended:
    """How an exported episode of ours ended; any other file holds answers."""
    for known in StopReason:
        if known is not StopReason.FAILED and stop_reason == known:
            return known
    return StopReason.ANSWERED
