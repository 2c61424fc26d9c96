"""What another harness wrote down of its answers, read without judging it.

VLMEvalKit's prediction files as TSV (`index`, `prediction`, perhaps `thinking`), and lmms-eval's samples (`doc_id` or
`doc.index`, `filtered_resps`, `resps`). evaluation/exchange/imports.py makes a run of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.episode import StopReason
from agent.protocol import FinalAnswer, parse_action
from agent.records import EpisodeKey
from evaluation.errors import BenchmarkError
from evaluation.runs.files import read_lines
from evaluation.runs.rows import NOT_RUN
from evaluation.tables.tsv import raw_rows

_FAILED = "failed to obtain answer via api"
"""How VLMEvalKit marks a question that its model server did not answer."""
_NOTHING = frozenset({"", "nan", "none", "null", "<na>"})
"""An answer that is missing, as pandas and JSON write it."""
_NOT_EVALUATED = frozenset({str(StopReason.FAILED), NOT_RUN})
_LETTERS = "ABCDEFGHI"
_EXCEL = frozenset({".xlsx", ".xls"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """One answer of a file, and what the file says of its question."""

    place: str
    """File and row, for messages."""
    item_id: str
    sample: int = 0
    written: str
    """What is scored, as the file has it."""
    reply: str = ""
    """All that the model wrote, if the file holds more than the answer."""
    stop_reason: str = ""
    """How the episode ended, if the file was exported from a run of ours."""
    question: str = ""
    gold: object = None
    """The right answer as the file has it: a text or a list of them; None if it says nothing."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text of the options that the file has."""

    @property
    def key(self) -> EpisodeKey:
        """Which episode of a run it becomes."""
        return EpisodeKey(self.item_id, self.sample)

    @property
    def why_none(self) -> str:
        """Why this is no answer of a model; empty if it is one."""
        written = self.written.strip()
        if self.stop_reason in _NOT_EVALUATED:
            return f"it was not evaluated where the file is from ({self.stop_reason})"
        # A model that wrote something and then nothing behind its thoughts did answer: with nothing.
        if written.lower().startswith(_FAILED) or (written.lower() in _NOTHING and not self.reply.strip()):
            return f"the file holds no answer here but {written!r}"
        return ""

    @property
    def answer(self) -> str:
        """What is scored: the text behind the thinking, or of that what is in the tags of an answer, as in our modes."""
        if self.stop_reason:
            return self.written  # a run of ours has read it out of the reply
        action = parse_action(self.written)
        if isinstance(action, FinalAnswer):
            return action.text
        return self.written.rpartition("</think>")[2].strip() if "</think>" in self.written else self.written


def read_predictions(path: Path) -> list[Predicted]:
    """The answers of a file, in its order.

    Raises:
        BenchmarkError: The file is missing, broken or cut off, or answers an item twice.
    """
    if path.suffix.lower() in _EXCEL:
        raise BenchmarkError(f"{path} is an Excel file, and predictions are read as TSV: save it as tab-separated text")
    found: dict[EpisodeKey, Predicted] = {}
    for one in _lines(path) if path.suffix == ".jsonl" else _tsv(path):
        if one.key in found:
            raise BenchmarkError(f"{one.place}: item {one.item_id!r} was answered before")
        found[one.key] = one
    if not found:
        raise BenchmarkError(f"{path} holds no predictions")
    return list(found.values())


def _tsv(path: Path) -> Iterator[Predicted]:
    for number, values in raw_rows(path, ("prediction",)):
        yield Predicted(
            place=f"{path}, row {number}",
            item_id=values["index"],
            written=values["prediction"],
            reply=values.get("thinking", ""),
            stop_reason=values.get("stop_reason", ""),
            question=values.get("question", ""),
            gold=values.get("answer"),
            choices={letter: values[letter] for letter in _LETTERS if letter in values},
        )


def _lines(path: Path) -> Iterator[Predicted]:
    if not path.is_file():
        raise BenchmarkError(f"no file {path}")
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
            doc = row.get("doc")
            doc = doc if isinstance(doc, dict) else {}
            item_id, sample = str(doc.get("index", row.get("doc_id"))), int(row.get("sample", 0))
            raw, filtered = row.get("resps"), row.get("filtered_resps")
            if raw is None and filtered is None:
                raise KeyError("resps")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BenchmarkError(f"{place} is no sample of lmms-eval ({error!r}); was the file cut off?") from error
        reply = _first(raw)
        yield Predicted(
            place=place,
            item_id=item_id,
            sample=sample,
            written=_first(filtered) if filtered else reply,
            # A filter that left nothing, or took thoughts off, does not hide that there was a reply.
            reply=reply if filtered and _first(filtered) != reply else "",
            stop_reason=str(row.get("stop_reason") or ""),
            question=str(doc.get("question") or ""),
            gold=row.get("target"),
        )


def _first(said: object) -> str:
    while isinstance(said, list):
        said = said[0] if said else ""
    return "" if said is None else str(said)
