"""Graders without a model: a rule is sure or it is silent.

A rule decides only inside its domain, and the domain is a grammar of the whole answer and of the whole gold: one number with
its unit, one date, one option, one formula. What is left is undecided: the LLM judge decides, or `Rules(strict=True)` counts
it as wrong, which suits data whose answers are closed words, such as colours. judge/README.md shows what each rule accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from judge.rules.choices import choice_rule, read_choice
from judge.rules.dates import date_rule, read_date, time_rule
from judge.rules.layout import MAX_CHARS, peel
from judge.rules.lists import candidates, list_rule, range_rule, ratio_rule
from judge.rules.maths import Proofs, Prover, maths_rule, may_be_formula
from judge.rules.quantities import numbers_rule, read_quantity
from judge.rules.words import closed_words_rule, phrase_rule, yes_no_rule
from judge.verdict import Outcome, Verdict

RULES_VERSION = "2"
"""Changes whenever a verdict changes; a scoring states it. 1 was the rules until they were sure of the whole answer."""
_CODE = re.compile(r"([A-Za-z]{1,4})[- ]?([0-9]{1,6})([A-Za-z]?)")
_MAY_BE_A_LIST = re.compile(r"[,;/|&\n]|\b(?:or|and)\b")
_BULLETS = " \t-*•"
_ALTERNATIVE = re.compile(r"\bor\b| / |\|")
"""A slash without spaces may be part of a name."""
_PLAIN_LINE = re.compile(r"[\w .,'%°-]+")
_MAX_CANDIDATE_WORDS = 3
_MANY, _MANY_LINES = 4, 3
"""So many items behind commas are no longer a place with its region and country, and so many short lines no explanation."""

Rule = Callable[[str, str, str], bool | None]
"""(answer, gold, question), both without marks of layout, -> right, wrong, or silent."""


def code_rule(answer: str, gold: str, question: str) -> bool | None:
    """Say no to codes of the same letters and another number: E10 is not E5, B12 not B6."""
    expected, given = _CODE.fullmatch(gold), _CODE.fullmatch(answer)
    if (
        expected is None
        or given is None
        or expected[1].lower() != given[1].lower()
        or expected[3].lower() != given[3].lower()
    ):
        return None
    return None if int(expected[2]) == int(given[2]) or read_date(gold) or read_date(answer) else False


def candidates_rule(answer: str, gold: str, question: str) -> bool | None:
    """Say no to an answer that lists several numbers, letters, or words of a class, of which one surely is not the gold."""
    offered, alternatives = candidates(answer)
    if not offered:
        return None
    if len(offered) == 2 and gold == ".".join(offered):
        return None  # 3, 5 may be 3.5
    verdicts = [_typed(item, gold, alternatives=alternatives) for item in offered]
    return None if None in verdicts or all(verdicts) else False


def _typed(item: str, gold: str, *, alternatives: bool) -> bool | None:
    """Whether one listed item is the gold; None if it is no plain number, letter, or (of alternatives) word of a class."""
    item = peel(item)
    letter = read_choice(item)
    if letter is not None and letter.exact and not letter.text:
        return choice_rule(item, gold, "")
    quantity = read_quantity(item)
    if quantity is not None:
        plain = not quantity.units and quantity.number.form in ("integer", "decimal", "fraction", "word")
        return numbers_rule(item, gold, "") if plain else None
    if "\\" in item:
        return maths_rule(item, gold, _no_proof)
    if not alternatives:
        return None
    decided = yes_no_rule(item, gold, "is")
    return closed_words_rule(item, gold, "") if decided is None else decided


def _no_proof(gold: str, answer: str) -> bool:
    return False


_DIGITS = frozenset("0123456789")
_RULES: tuple[tuple[str, Rule, int, frozenset[str] | None], ...] = (
    ("choice", choice_rule, 4, None),
    ("yes_no", yes_no_rule, 8, None),
    ("words", closed_words_rule, 24, None),
    ("number", numbers_rule, 120, None),
    ("date", date_rule, 40, _DIGITS),
    ("time", time_rule, 14, _DIGITS),
    ("range", range_rule, 60, frozenset("-ta")),
    ("ratio", ratio_rule, 60, frozenset(":")),
    ("code", code_rule, 12, _DIGITS),
)
"""Name, rule, the longest gold it reads, and signs of which the gold has one: what cannot be is not asked."""
_BETWEEN_ITEMS = re.compile(r"[,;|/&$\\]|\b(?:or|and)\b|^\(?[A-J]\)? ")


def decide(answer: str, gold: str, question: str, prove: Prover) -> tuple[str, bool | None]:
    """Ask the rules in order about one answer and one gold.

    Args:
        answer: Without marks of layout.
        gold: Likewise.
        question: What was asked; it can only make a rule silent.
        prove: math-verify.

    Returns:
        (the rule's name, its verdict); the verdict is None if all are silent.
    """
    if answer == gold:
        name = "choice" if len(gold) == 1 and "A" <= gold <= "Z" else "exact"
        return name, phrase_rule(answer, gold, question) if gold else None
    if len(answer) > MAX_CHARS or len(gold) > MAX_CHARS:
        return "exact", None
    for name, rule, longest, signs in _RULES:
        if len(gold) <= longest and (signs is None or not signs.isdisjoint(gold)):
            decided = rule(answer, gold, question)
            if decided is not None:
                return name, decided
    if _BETWEEN_ITEMS.search(answer):
        decided = list_rule(answer, gold, _same_item)
        if decided is not None:
            return "list", decided
        decided = candidates_rule(answer, gold, question)
        if decided is not None:
            return "candidates", decided
    decided = phrase_rule(answer, gold, question)
    return ("exact", decided) if decided is not None else ("maths", maths_rule(answer, gold, prove))


def _same_item(gold: str, answer: str) -> bool | None:
    """One item of a list against another."""
    gold, answer = peel(gold), peel(answer)
    if "=" in gold and "".join(gold.split()) == "".join(answer.split()):
        return True
    for rule in (numbers_rule, date_rule, closed_words_rule, phrase_rule):
        decided = rule(answer, gold, "")
        if decided is not None:
            return decided
    # With names y = 2, x = 1 may be told in any order, without them 2, 1 may not.
    return maths_rule(answer, gold, _no_proof) if ("=" in gold) == ("=" in answer) else None


def lists_candidates(answer: str, gold: str | Sequence[str]) -> bool:
    """Whether an answer offers several candidates where one was asked, and not all of them are right.

    Stricter than a verdict, for rewards: «Paris or Rome» may be judged leniently, and a policy would learn to write it.
    """
    golds = [_readable(text) for text in ([gold] if isinstance(gold, str) else gold)]
    given = _readable(answer)
    if len(answer) > MAX_CHARS or any(_MAY_BE_A_LIST.search(text) or given == text for text in golds):
        return False
    lines = [line.strip(_BULLETS) for line in answer.splitlines() if line.strip(_BULLETS)]
    if len(lines) > 1 and all(_PLAIN_LINE.fullmatch(line) for line in lines):
        offered, alternatives, many = tuple(dict.fromkeys(map(peel, lines))), False, _MANY_LINES
    else:
        offered, alternatives, many = candidates(given)[0], _ALTERNATIVE.search(given) is not None, _MANY
    if len(offered) < 2 or max(len(item.split()) for item in offered) > _MAX_CANDIDATE_WORDS:
        return False
    right = [any(decide(peel(item), text, "", _no_proof)[1] for text in golds) for item in offered]
    if all(right):
        return False
    known = [_typed(item, text, alternatives=True) is not None for item in offered for text in golds]
    return alternatives or all(known) or (len(offered) >= many and any(right))


def may_take_long(answer: str | None, gold: str | Sequence[str]) -> bool:
    """Whether a verdict may ask math-verify: up to a second, not to be spent on an event loop."""
    texts = [answer, gold] if isinstance(gold, str) else [answer, *gold]
    return any(isinstance(text, str) and len(text) <= MAX_CHARS and may_be_formula(text) for text in texts)


class Rules:
    """Judges by rules alone."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def judge(self, answer: str | None, gold: str | Sequence[str], *, question: str = "") -> Verdict:
        """Judge one answer against one gold answer or several, of which any will do.

        Raises:
            ValueError: There is no gold answer.
        """
        golds = (gold,) if isinstance(gold, str) else tuple(gold)
        if not golds or not all(isinstance(text, str) and text.strip() for text in golds):
            raise ValueError(f"gold answer {gold!r} is empty; a question without a gold answer cannot be judged")
        if answer is None or not answer.strip():
            return Verdict(outcome=Outcome.INCORRECT, decided_by="rule:empty", reason="there is no answer")
        given = _readable(answer)
        prove = Proofs()
        refused, sure_no = "", 0
        for text in golds:
            name, decided = decide(given, _readable(text), question, prove)
            if decided:
                return Verdict(outcome=Outcome.CORRECT, decided_by=f"rule:{name}", reason=f"equals {text!r}")
            # Of several golds an answer may list more than one.
            if decided is False and (name != "candidates" or len(golds) == 1):
                refused, sure_no = name, sure_no + 1
        if sure_no == len(golds):
            return Verdict(outcome=Outcome.INCORRECT, decided_by=f"rule:{refused}", reason=f"is not {golds[0]!r}")
        if self._strict:
            return Verdict(outcome=Outcome.INCORRECT, decided_by="rule:strict", reason="no rule accepts it")
        return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason="no rule is sure")


def _readable(text: str) -> str:
    """Without marks of layout; a long text as it is, of which rules know only whether it is the same."""
    if text.isalnum() and text.isascii():
        return text
    return peel(text) if len(text) <= MAX_CHARS else text.strip()
