"""Graders without a model. A rule decides only when it is sure; otherwise the next one is asked.

Order: choice letter, yes or no, number (words, percent and units included), date, exact after normalising, list, maths
(math-verify). tests/unit/judge/labelled_pairs.jsonl holds labelled answers, each with its reason: no rule may call a right
one wrong or a wrong one right. `Rules(strict=True)` calls an answer that no
rule accepts INCORRECT instead of leaving it open; that suits data whose answers are closed words, such as colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from judge import maths
from judge.verdict import Outcome, Verdict

_CHOICE_GOLD = re.compile(r"^\(?([A-Z])[).:]?$")
_CHOICE_ANSWER = re.compile(
    r"^(?:the )?(?:final )?(?:answer|option|choice)?(?: is)?:? *\(?([A-Z])\)?(?:[.:)] .*)?\.?$", re.IGNORECASE
)
_NUMBER = re.compile(r"^[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?$")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SPACES = re.compile(r"\s+")
_MATHS_MARKS = re.compile(r"\\[a-zA-Z]+|[=^_{}]|\d")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|\d\s+[A-Za-z]\b|°\s*[A-Za-z]")
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19, "twenty": 20,
}  # fmt: skip
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_WITH_UNIT = re.compile(r"^([-+]?[\d.,]+(?:[eE][-+]?\d+)?)\s*([a-zA-Zµ°%]+)$")
_UNITS = {
    "%": (1.0, "percent"), "percent": (1.0, "percent"),
    "mm": (0.001, "length"), "cm": (0.01, "length"), "m": (1.0, "length"), "km": (1000.0, "length"),
    "meters": (1.0, "length"), "metres": (1.0, "length"), "kilometers": (1000.0, "length"), "centimeters": (0.01, "length"),
    "mg": (1e-6, "mass"), "g": (0.001, "mass"), "kg": (1.0, "mass"), "grams": (0.001, "mass"), "kilograms": (1.0, "mass"),
    "ms": (0.001, "time"), "s": (1.0, "time"), "seconds": (1.0, "time"), "min": (60.0, "time"), "minutes": (60.0, "time"),
    "h": (3600.0, "time"), "hours": (3600.0, "time"), "ml": (0.001, "volume"), "l": (1.0, "volume"), "L": (1.0, "volume"),
}  # fmt: skip
"""Unit -> (factor to the base unit, what it measures). Case matters: m is not M."""
_MAX_MATHS_CHARS = 300
_REL_TOLERANCE = 1e-6
_ROUNDING_FRAC = 0.05


def normalise(text: str) -> str:
    """Lower case, one kind of quotes and spaces, no articles, no closing punctuation."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("“", '"').replace("”", '"')
    text = _ARTICLES.sub(" ", text)
    return _SPACES.sub(" ", text).strip(" .!?,;:'\"`*")


def choice_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decides when the gold answer is one letter and the answer is one, perhaps with its text behind it."""
    expected = _CHOICE_GOLD.match(gold.strip())
    given = _CHOICE_ANSWER.match(answer.strip().strip("*"))
    if expected is None or given is None:
        return None
    return given[1].upper() == expected[1]


def yes_no_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decides between the bare words; an answer that goes on may take back what it began with."""
    expected, given = _YES_NO.get(normalise(gold)), _YES_NO.get(normalise(answer))
    return None if expected is None or given is None else expected == given


def number_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes to numbers within a relative 1e-6, and no when they are more than 5 % apart; whole ones must be equal.

    In between is where rounding lives: 0.33 for 0.333 is for a judge to decide. Thousands separators and number words are
    allowed. Units and percent signs decide only if both have them and they measure the same thing: 120 cm is 1.2 m, but
    whether "12 cm" answers a gold "12", or "50 %" a gold "0.5", depends on the question.
    """
    of_answer, of_gold = _quantity(answer), _quantity(gold)
    if of_answer is None or of_gold is None:
        return None
    (given, given_kind), (expected, expected_kind) = of_answer, of_gold
    if given_kind != expected_kind:
        return None
    if given_kind:
        expected, given = round(expected, 12), round(given, 12)
    elif given.is_integer() and expected.is_integer():
        return given == expected
    apart = abs(given - expected)
    if apart <= _REL_TOLERANCE * max(1.0, abs(expected)):
        return True
    return False if apart > _ROUNDING_FRAC * abs(expected) else None


def _quantity(text: str) -> tuple[float, str] | None:
    """(value in the base unit, what is measured); plain numbers measure "". None if it is no quantity."""
    plain = _number(text)
    if plain is not None:
        return plain, ""
    word = _NUMBER_WORDS.get(normalise(text))
    if word is not None:
        return float(word), ""
    match = _WITH_UNIT.match(text.strip().rstrip("."))
    if match is None or (unit := _UNITS.get(match[2])) is None:
        return None
    value = _number(match[1])
    return None if value is None else (value * unit[0], unit[1])


def date_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decides between full dates that can be read in one way only: 2024-03-05, March 5, 2024, 5 March 2024."""
    dates = [_date(answer), _date(gold)]
    return None if None in dates else dates[0] == dates[1]


def _date(text: str) -> tuple[int, int, int] | None:
    """(year, month, day)."""
    text = normalise(text).replace(",", " ")
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", text):
        found = int(match[1]), int(match[2]), int(match[3])
    elif match := re.fullmatch(r"([a-z]{3,9})\.? +(\d{1,2})(?:st|nd|rd|th)? +(\d{4})", text):
        found = int(match[3]), _MONTHS.get(match[1][:3], 0), int(match[2])
    elif match := re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?(?: of)? +([a-z]{3,9})\.? +(\d{4})", text):
        found = int(match[3]), _MONTHS.get(match[2][:3], 0), int(match[1])
    else:
        return None
    return found if 1 <= found[1] <= 12 and 1 <= found[2] <= 31 else None


def list_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes when every item is equal in the same order, or in any order if the gold is a set in braces; never says no."""
    brackets = [(text.strip()[:1] + text.strip()[-1:]) for text in (answer, gold)]
    # An open end of an interval is not a closed one; only a list with brackets equals one without.
    enclosed = [pair for pair in brackets if set(pair) & set("[](){}")]
    if any(pair not in ("[]", "()", "{}") for pair in enclosed) or len(set(enclosed)) > 1:
        return None
    expected, given = _items(gold), _items(answer)
    if len(expected) < 2 or len(expected) != len(given):
        return None
    if gold.strip().startswith("{"):
        expected, given = sorted(expected), sorted(given)
    return True if expected == given else None


def _items(text: str) -> list[str]:
    text = text.strip().strip("[](){}").strip()
    items = re.split(r"\s*[;,]\s*(?:and\s+)?|\s+and\s+", text)
    return [item for item in map(normalise, items) if item]


def _number(text: str) -> float | None:
    text = text.strip().strip("$").rstrip(".").strip()
    if not text or not any(char.isdigit() for char in text) or not _NUMBER.match(text):
        return None
    return float(text.replace(",", ""))


def maths_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes when math-verify proves both equal within a second; never says no: a failed parse looks like a difference."""
    if max(len(answer), len(gold)) > _MAX_MATHS_CHARS or not _MATHS_MARKS.search(gold):
        return None
    # math-verify drops units and words, so that "12 cm" would equal "12 m".
    if _WORDS.search(answer) or _WORDS.search(gold):
        return None
    return True if maths.shared().equal(_as_latex(gold), _as_latex(answer)) else None


def may_take_long(gold: str | Sequence[str]) -> bool:
    """Whether a verdict may ask math-verify: up to a second, not to be spent on an event loop."""
    golds = [gold] if isinstance(gold, str) else gold
    return any(isinstance(text, str) and _MATHS_MARKS.search(text) is not None for text in golds)


def _as_latex(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


def exact_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes when both are equal after `normalise`; never says no, because words can be put differently."""
    return True if normalise(answer) == normalise(gold) != "" else None


Rule = Callable[[str, str, str], bool | None]
RULES: tuple[tuple[str, Rule], ...] = (
    ("choice", choice_rule),
    ("yes_no", yes_no_rule),
    ("number", number_rule),
    ("date", date_rule),
    ("exact", exact_rule),
    ("list", list_rule),
    ("maths", maths_rule),
)


class Rules:
    """Judges by rules alone."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def judge(self, answer: str | None, gold: str | Sequence[str], *, question: str = "") -> Verdict:
        """Judge one answer against one gold answer or several, of which any will do.

        Raises:
            ValueError: There is no gold answer.
        """
        golds = [gold] if isinstance(gold, str) else list(gold)
        if not golds or not all(isinstance(text, str) and text.strip() for text in golds):
            raise ValueError(f"gold answer {gold!r} is empty; a question without a gold answer cannot be judged")
        if answer is None or not answer.strip():
            return Verdict(outcome=Outcome.INCORRECT, decided_by="rule:empty", reason="there is no answer")
        refused = ""
        sure_no = 0
        for text in golds:
            for name, rule in RULES:
                decided = rule(answer, text, question)
                if decided:
                    return Verdict(outcome=Outcome.CORRECT, decided_by=f"rule:{name}", reason=f"equals {text!r}")
                if decided is False:
                    refused, sure_no = name, sure_no + 1
                    break
        if sure_no == len(golds):
            return Verdict(outcome=Outcome.INCORRECT, decided_by=f"rule:{refused}", reason=f"is not {golds[0]!r}")
        if self._strict:
            return Verdict(outcome=Outcome.INCORRECT, decided_by="rule:strict", reason="no rule accepts it")
        return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason="no rule is sure")
