"""Lists, sets and ranges, and answers that offer several candidates for one gold.

A list keeps its order unless the gold is a set in braces. An answer that lists candidates is wrong if one of them is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judge.rules.dates import read_time
from judge.rules.numbers import Number, is_padded, same_number
from judge.rules.quantities import read_quantity

_MAX_ITEMS = 40
_MAX_CHARS = 400
_ENCLOSURES = {("[", "]"), ("(", ")"), ("{", "}")}
_BETWEEN_ITEMS = re.compile(r" ?; ?(?:and )?|, (?:and |& )?|,(?![0-9]{3}(?![0-9]))|,? and | & ")
_ALTERNATIVES = re.compile(r",? or (?:else )?|(?<![0-9 ]) ?/ ?(?![0-9 ])| ?\| ?")
_LISTED = re.compile(r"; ?|, (?:and |& )?|,(?![0-9]{3}(?![0-9]))| and | & ")
_GROUPED = re.compile(r"[0-9]{1,3}(?:, [0-9]{3})+")
_FORMULAS = re.compile(r"\$([^$]+)\$")
_BETWEEN_FORMULAS = re.compile(r"(?: |,|;|/|\||or|and)*")
_BOXES = re.compile(r"\\boxed\{([^{}]{1,40})\}")
_LETTERS_APART = re.compile(r"[A-J](?: [A-J]){1,9}|\([A-J]\)(?: \([A-J]\)){1,9}")
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_RANGE = re.compile(
    rf"(?:between ({_NUMBER}) and |from ({_NUMBER}) to |({_NUMBER}) to |({_NUMBER}) ?- ?)({_NUMBER})( ?%| [a-z]+)?",
    re.IGNORECASE,
)
_RATIO = re.compile(r"[1-9][0-9]{0,8}(?: ?: ?[1-9][0-9]{0,8}){1,9}")

Same = Callable[[str, str], bool | None]
"""Compares two items (gold, answer)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A text that is a list."""

    items: tuple[str, ...]
    enclosure: str
    """The opening bracket, or nothing."""
    spaced: bool
    """Whether it can only be a list: a comma without a space may be a decimal comma."""


@functools.lru_cache(4096)
def read_list(text: str) -> Listed | None:
    """A whole text as a list of two items or more without inner brackets; None if it is none."""
    if len(text) > _MAX_CHARS or not ("," in text or ";" in text or " and " in text or " & " in text):
        return None
    enclosure = ""
    body = text.replace(r"\{", "{").replace(r"\}", "}").replace(r"\left", "").replace(r"\right", "")
    if (body[:1], body[-1:]) in _ENCLOSURES:
        enclosure, body = body[0], body[1:-1].strip()
    if any(char in "[](){}" for char in body) or "..." in body or "dots" in body or "…" in body:
        return None
    items = _BETWEEN_ITEMS.split(body)
    if not 2 <= len(items) <= _MAX_ITEMS or not all(item.strip() for item in items):
        return None
    spaced = len(items) > 2 or bool(enclosure) or ", " in body or ";" in body or "," not in body
    return Listed(tuple(item.strip() for item in items), enclosure, spaced)


def list_rule(answer: str, gold: str, same: Same) -> bool | None:
    """Say yes to equal items in order (in any order if the gold is a set), and no to lists of plain numbers that differ."""
    expected = read_list(gold)
    if expected is None:
        return None
    given = read_list(answer)
    if given is None or not expected.spaced or not given.spaced:
        return None
    numbers = _all_plain(expected.items), _all_plain(given.items)
    if (
        {expected.enclosure, given.enclosure} - {""}
        and expected.enclosure != given.enclosure
        and not _may_be_told_without(expected, given)
    ):
        return None
    if len(expected.items) == len(given.items):
        pairs = list(zip(expected.items, given.items, strict=True))
        if expected.enclosure == "{":
            pairs = _matched(expected.items, given.items, same) or pairs
        if all(same(one, two) for one, two in pairs) and (
            expected.enclosure != "{" or len(set(given.items)) == len(given.items)
        ):
            return True
    if numbers[0] is not None and numbers[1] is not None:
        return _different_numbers(numbers[0], numbers[1])
    return None


def _may_be_told_without(expected: Listed, given: Listed) -> bool:
    """[a, b, c] and a set may be told without brackets; (a, b) and [1, 2] may be an interval or a point."""
    pair = {expected.enclosure, given.enclosure}
    if pair == {"", "["}:
        return len(expected.items) != 2 or _all_plain(expected.items) is None
    return pair == {"", "{"} and expected.enclosure == "{"


def _matched(expected: Sequence[str], given: Sequence[str], same: Same) -> list[tuple[str, str]] | None:
    """Pairs of equal items whatever their order."""
    left = list(given)
    pairs = []
    for one in expected:
        two = next((item for item in left if same(one, item)), None)
        if two is None:
            return None
        left.remove(two)
        pairs.append((one, two))
    return pairs


def _all_plain(items: Sequence[str]) -> list[Number] | None:
    """The items as plain numbers, if all are."""
    found = [read_quantity(item) for item in items]
    numbers = [quantity.number for quantity in found if quantity is not None and not quantity.units]
    plain = [number for number in numbers if number.form in ("integer", "decimal") and not is_padded(number)]
    return plain if len(plain) == len(items) else None


def _different_numbers(expected: Sequence[Number], given: Sequence[Number]) -> bool | None:
    """False if some number of one list surely stands in no place of the other."""
    for one, others in [*((number, given) for number in expected), *((number, expected) for number in given)]:
        if all(same_number(one, other) is False for other in others):
            return False
    return None


def range_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between ranges by both ends. 2-1 and 1-2 may be one score, 2019-20 and 2019-2020 one season."""
    expected = read_range(gold)
    if expected is None:
        return None
    given = read_range(answer)
    if given is None or expected[2] != given[2]:
        return None
    verdicts = [same_number(one, two) for one, two in zip(expected[:2], given[:2], strict=True)]
    if all(verdicts):
        return True
    crossed = [same_number(expected[0], given[1]), same_number(expected[1], given[0])]
    if False not in verdicts or False not in crossed or _shortened(expected) or _shortened(given):
        return None
    return False


@functools.lru_cache(4096)
def read_range(text: str) -> tuple[Number, Number, str] | None:
    """(from, to, unit) of a whole text; None if it is no range."""
    if len(text) > 60 or not ("-" in text or " to " in text or "and" in text):
        return None
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    ends = [read_quantity(found[1] or found[2] or found[3] or found[4]), read_quantity(found[5])]
    if ends[0] is None or ends[1] is None:
        return None
    return ends[0].number, ends[1].number, (found[6] or "").strip()


def _shortened(ends: tuple[Number, Number, str]) -> bool:
    return ends[1].value < ends[0].value and len(ends[1].text) < len(ends[0].text)


def ratio_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between ratios that no time can be: equal as written, or not in proportion either way round."""
    if (
        ":" not in gold
        or ":" not in answer
        or len(gold) > 60
        or len(answer) > 60
        or not (_RATIO.fullmatch(gold) and _RATIO.fullmatch(answer))
    ):
        return None
    expected, given = ([int(part) for part in text.replace(" ", "").split(":")] for text in (gold, answer))
    if len(expected) != len(given) or (read_time(gold) is not None and read_time(answer) is not None):
        return None
    if expected == given:
        return True
    if len(expected) == 2 and expected[0] * given[0] == expected[1] * given[1]:
        return None
    return None if all(expected[0] * two == given[0] * one for one, two in zip(expected, given, strict=True)) else False


@functools.lru_cache(4096)
def candidates(text: str) -> tuple[tuple[str, ...], bool]:
    """Different answers that a whole text offers: as alternatives (`3 or 4`, `red / blue`) or listed (`A, C`, `$1$ $2$`).

    Returns:
        (two items or more, or none if the text offers one answer; whether they stand for each other).
    """
    if len(text) > _MAX_CHARS or len(text) < 3:
        return (), False
    alternatives = False
    if _LETTERS_APART.fullmatch(text):
        items = [item.strip("()") for item in text.split(" ")]
    elif text.count("$") >= 4:
        items = _FORMULAS.findall(text) if _BETWEEN_FORMULAS.fullmatch(_FORMULAS.sub(" ", text)) else []
    elif text.count("\\boxed{") >= 2:
        items = _BOXES.findall(text) if _BETWEEN_FORMULAS.fullmatch(_BOXES.sub(" ", text)) else []
    else:
        body = text[7:] if text[:7].lower() == "either " else text
        parts = _ALTERNATIVES.split(body)
        alternatives = len(parts) > 1
        # A lone comma without a space may be a decimal comma, and three digits behind one with a space a thousand.
        listed = (", " in body or body.count(",") > 1 or "," not in body) and not _GROUPED.fullmatch(body)
        items = [item for part in parts for item in (_LISTED.split(part) if listed else [part])]
    items = [item.strip() for item in items if item.strip()]
    return (tuple(items), alternatives) if len(set(items)) > 1 and len(items) <= _MAX_ITEMS else ((), False)
