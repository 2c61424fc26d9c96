"""Graders without a model. A rule decides only when it is sure; otherwise the next one is asked.

Order: choice letter, number, maths (math-verify), exact after normalising. `Rules(strict=True)` calls an answer that no
rule accepts INCORRECT instead of leaving it open; that suits data whose answers are closed words, such as colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from judge.verdict import Outcome, Verdict

_CHOICE_GOLD = re.compile(r"^\(?([A-Z])[).:]?$")
_CHOICE_ANSWER = re.compile(
    r"^(?:the )?(?:final )?(?:answer|option|choice)?(?: is)?:? *\(?([A-Z])\)?(?:[.:)] .*)?\.?$", re.IGNORECASE
)
_NUMBER = re.compile(r"^[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?$")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SPACES = re.compile(r"\s+")
_MATHS_MARKS = re.compile(r"\\[a-zA-Z]+|[=^_{}]|\d")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|\d\s+[A-Za-z]\b")
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


def number_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes to plain numbers within a relative 1e-6, and no when they are more than 5 % apart; whole ones must be equal.

    In between is where rounding lives: 0.33 for 0.333 is for a judge to decide. Thousands separators are allowed.
    """
    numbers = [_number(answer), _number(gold)]
    if numbers[0] is None or numbers[1] is None:
        return None
    given, expected = numbers[0], numbers[1]
    if given.is_integer() and expected.is_integer():
        return given == expected
    apart = abs(given - expected)
    if apart <= _REL_TOLERANCE * max(1.0, abs(expected)):
        return True
    return False if apart > _ROUNDING_FRAC * abs(expected) else None


def _number(text: str) -> float | None:
    text = text.strip().strip("$").rstrip(".").strip()
    if not text or not any(char.isdigit() for char in text) or not _NUMBER.match(text):
        return None
    return float(text.replace(",", ""))


def maths_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes when math-verify proves both equal; never says no, because a failed parse looks like a difference."""
    if max(len(answer), len(gold)) > _MAX_MATHS_CHARS or not _MATHS_MARKS.search(gold):
        return None
    # math-verify drops units and words, so that "12 cm" would equal "12 m".
    if _WORDS.search(answer) or _WORDS.search(gold):
        return None
    # math-verify loads SymPy: half a second that an answer in words need not pay.
    from math_verify import parse, verify

    # Its time-outs use SIGALRM, which works in a main thread only; the length limit bounds the work instead.
    parsed = [parse(_as_latex(text), parsing_timeout=0, raise_on_error=False) for text in (gold, answer)]
    if not parsed[0] or not parsed[1]:
        return None
    return True if verify(parsed[0], parsed[1], timeout_seconds=0, raise_on_error=False) else None


def _as_latex(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


def exact_rule(answer: str, gold: str, question: str) -> bool | None:
    """Says yes when both are equal after `normalise`; never says no, because words can be put differently."""
    return True if normalise(answer) == normalise(gold) != "" else None


Rule = Callable[[str, str, str], bool | None]
RULES: tuple[tuple[str, Rule], ...] = (
    ("choice", choice_rule),
    ("number", number_rule),
    ("exact", exact_rule),
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
