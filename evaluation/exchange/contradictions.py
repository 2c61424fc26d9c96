"""Whether a file of answers speaks of the questions that a run has.

Files of another version or another order have the same ids, and would be scored without a word. What they say besides, of
the question, its options and the right answer, gives them away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.benchmarks import Item
from evaluation.errors import BenchmarkError
from evaluation.exchange.predictions import Predicted
from evaluation.tables.tsv import MISSING, literal_list

_SHOWN, _SHOWN_CHARS = 3, 80
_AROUND = " \t.:;,()[]\"'`"


def check_items(path: Path, predictions: Sequence[Predicted], items: Mapping[str, Item]) -> None:
    """Hold what the file says of each question against the question.

    Raises:
        BenchmarkError: It answers items that the benchmark does not have, or contradicts items; rows are named.
    """
    unknown = [one.item_id for one in predictions if one.item_id not in items]
    if unknown:
        raise BenchmarkError(
            f"{path} answers {len(unknown)} items that the benchmark does not have, such as {unknown[0]!r}; is it another "
            "benchmark's?"
        )
    against = [(one.place, why) for one in predictions if (why := next(_contradictions(one, items[one.item_id]), ""))]
    if against:
        shown = "\n".join(f"  {place}: {why}" for place, why in against[:_SHOWN])
        more = f"\n  and {len(against) - _SHOWN} more" if len(against) > _SHOWN else ""
        raise BenchmarkError(
            f"{path} contradicts the benchmark in {len(against)} of {len(predictions)} rows, so its answers may be of other "
            f"questions:\n{shown}{more}\nGive the file that belongs to this --data, or take these rows out: an item without "
            "an answer is not evaluated"
        )


def _contradictions(one: Predicted, item: Item) -> Iterator[str]:
    if item.unread:
        return  # nothing is known of it, and it is not evaluated
    said = f"item {item.item_id!r} has the"
    if one.question not in MISSING and not _contained(one.question, item.question):
        yield f"the question is {_short(one.question)} there, and {said} question {_short(item.question)}"
    for letter, text in one.choices.items():
        if text not in MISSING and letter in item.choices and not _same(text, item.choices[letter]):
            yield f"option {letter} is {_short(text)} there, and {said} option {_short(item.choices[letter])}"
    golds = _texts(one.gold)
    if golds and not any(_same(gold, known) for gold in golds for known in _golds(item)):
        yield f"the right answer is {_short(golds[0])} there, and {said} gold {_short(item.gold)}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")


def _texts(gold: object) -> list[str]:
    """Right answers as a file writes them: a text, a list, or a list literal; nothing where a cell is empty."""
    if isinstance(gold, list):
        return [text for part in gold for text in _texts(part)]
    if gold is None or str(gold) in MISSING:
        return []
    return [str(gold), *(text for text in literal_list(str(gold)) if text != gold)]


def _golds(item: Item) -> Iterator[str]:
    """Whatever the item knows a right answer by: a letter, an option's text, one of several golds."""
    yield from _texts(item.gold)
    if item.gold in item.choices:
        yield item.choices[item.gold]
    yield from (letter for letter, text in item.choices.items() if text == item.gold)
    for value in item.fields.values():
        yield from _texts(value)
        try:
            yield from _texts(json.loads(value))
        except (ValueError, RecursionError):
            continue


def _contained(question: str, asked: str) -> bool:
    """A benchmark asks its question with options and a format beside it; another harness may keep it with its own."""
    bare, whole = _bare(question), _bare(asked)
    return bare in whole or whole in bare


def _bare(text: str) -> str:
    return re.sub(r"<image(?: ?\d+)?>|\W+", "", text.casefold())


def _same(a: str, b: str) -> bool:
    a, b = (" ".join(text.casefold().split()).strip(_AROUND) for text in (a, b))
    if a == b:
        return True
    try:
        return float(a) == float(b)  # a spreadsheet writes 3.10 as 3.1
    except ValueError:
        return False
