"""Words: yes and no, words of closed classes, which exclude each other, and phrases, which are equal or nothing is known."""

from __future__ import annotations

import functools
import re

from judge.rules.units import is_symbol

_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_ASKS_YES_NO = re.compile(
    r"^(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|must)\b|\b(?:yes or no|true or false)\b",
    re.IGNORECASE,
)
_CLASS_LINES = """
red orange yellow green blue purple pink brown black white grey
monday tuesday wednesday thursday friday saturday sunday
january february march april may june july august september october november december
spring summer autumn winter
left right
up down
top bottom
north south east west
above below
inside outside
open closed
on off
day night
hot cold
male female
man woman
boy girl
small medium large
horizontal vertical
clockwise counterclockwise
increasing decreasing
even odd
circle square triangle
wood metal glass plastic
cat dog horse sheep cow elephant bear zebra giraffe
bicycle motorcycle train airplane
"""
CLASSES = tuple(tuple(line.split()) for line in _CLASS_LINES.strip().splitlines())
"""Of each class two different words are two different answers."""
_SYNONYMS = {
    "gray": "grey", "fall": "autumn", "counter-clockwise": "counterclockwise", "anticlockwise": "counterclockwise",
    "anti-clockwise": "counterclockwise",
}  # fmt: skip
_CLASS_OF = {word: number for number, words in enumerate(CLASSES) for word in words}
_LABELS_AFTER_A = {
    "major", "minor", "flat", "sharp", "natural", "positive", "negative", "level", "levels", "team", "train", "side", "star",
    "list", "plus", "minus", "and", "or", "is", "la", "priori", "posteriori", "cappella", "coruña", "propos",
}  # fmt: skip
"""`A minor` is no minor, `A positive` is a blood group."""
_ARTICLES = frozenset({"a", "an", "the"})
_ROMAN = re.compile("[IVXLCDM]+")
_MAX_DIFFERENCE_CHARS = 6
"""An article with its space, and marks."""
_SHORT_WORDS = {
    "of", "in", "on", "to", "by", "up", "is", "my", "we", "so", "de", "la", "le", "el", "al", "st", "mr", "dr", "vs", "at",
}  # fmt: skip
_EXACT_ONLY = frozenset("\\^_{}=<>|$&~#+*/×÷√±²³¹⁰'\"@")
_NO_TEXT = frozenset({"nan", "null", "undefined", "n/a", "na", "#n/a", "inf", "-inf", "+inf", "infinity", "-infinity"})


def yes_no_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between the bare words yes, no, true and false. NO may be a gas, unless the question says no."""
    bare = gold.rstrip("!"), answer.rstrip("!")
    expected, given = _YES_NO.get(bare[0].lower()), _YES_NO.get(bare[1].lower())
    if expected is None or given is None:
        return None
    if "NO" in bare and expected is given and not _ASKS_YES_NO.search(question[:2000].strip()):
        return None
    return expected is given


def closed_words_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between two words of one closed class, such as colours or weekdays."""
    expected = _closed(gold)
    given = _closed(answer) if expected is not None else None
    if expected is None or given is None or _CLASS_OF[expected] != _CLASS_OF[given]:
        return None
    return expected == given


def _closed(text: str) -> str | None:
    word = text.rstrip("!").lower()
    if word.startswith("the "):
        word = word[4:]
    word = _SYNONYMS.get(word, word)
    return word if word in _CLASS_OF else None


def phrase_rule(answer: str, gold: str, question: str) -> bool | None:
    """Say yes to the same words but for case, an article at the front, and a mark at the end; never say no."""
    if answer == gold:
        return None if gold.lower() in _NO_TEXT else True
    last = [text.rstrip("!.")[-1:].casefold() for text in (answer, gold)]
    if abs(len(answer) - len(gold)) > _MAX_DIFFERENCE_CHARS or last[0] != last[1]:
        return None
    expected, given = _tokens(gold), _tokens(answer)
    if not expected or len(expected) != len(given):
        return None
    digits = any(char.isdigit() for char in gold)
    alone = len(expected) == 1
    return True if all(_same_word(*pair, digits=digits, alone=alone) for pair in zip(expected, given, strict=True)) else None


@functools.lru_cache(8192)
def _tokens(text: str) -> tuple[str, ...]:
    """The words without an article at the front and without a mark behind the last."""
    words = text.split(" ")
    front = words[0].lower()
    if (
        len(words) > 1
        and front in _ARTICLES
        and (front != "a" or _is_no_label(words[1]))
        and words[1].lower() not in _ARTICLES
    ):
        words = words[1:]
    last = words[-1]
    if len(last) > 2 and last[-1] in "!." and last[-2].isalpha() and last[:-1].isalpha():
        words[-1] = last[:-1]
    return tuple(words)


def _is_no_label(word: str) -> bool:
    return len(word) > 1 and word.rstrip("!.,;").isalpha() and word.islower() and word not in _LABELS_AFTER_A


def _same_word(one: str, two: str, *, digits: bool, alone: bool) -> bool:
    """Equal, or equal but for case where case says nothing: in words, but not in symbols, formulas and units."""
    if one == two:
        return True
    if one.casefold() != two.casefold() or len(one) != len(two) or not _EXACT_ONLY.isdisjoint(one.replace("'s", "")):
        return False
    if not one.strip("(),;:").replace("-", "").replace(".", "").replace("'s", "").isalpha():
        return False
    letters = [_pattern(one), _pattern(two)]
    if "mixed" in letters or any(char.isdigit() for char in one):
        return False
    if (digits and (is_symbol(one) or "upper" in letters)) or _ROMAN.fullmatch(one) or _ROMAN.fullmatch(two):
        return False
    if len(one) >= 4:
        return True
    if one.lower() in _CLASS_OF:
        return True
    if len(one) == 3:
        return "upper" not in letters
    return not alone and "upper" not in letters and one.lower() in _SHORT_WORDS


def _pattern(word: str) -> str:
    """`lower`, `title`, `upper` or `mixed`."""
    if word.islower():
        return "lower"
    if len(word) > 1 and word.isupper():
        return "upper"
    return "title" if word[:1].isupper() and word[1:] == word[1:].lower() else "mixed"
