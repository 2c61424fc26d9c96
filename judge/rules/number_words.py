"""Numbers in English words: `forty-two`, `two hundred and five`, `3rd`, `third`, `2 million`."""

from __future__ import annotations

import re

_UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SMALL = _UNITS | _TENS
MAGNITUDES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINAL_WORDS = """
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth
seventeenth eighteenth nineteenth twentieth
"""
_ORDINALS = {word: number for number, word in enumerate(_ORDINAL_WORDS.split(), start=1)} | {"thirtieth": 30}
FIRST_WORDS = frozenset({*_SMALL, *_ORDINALS})
_WORD = re.compile(r"[A-Za-z]+")
_ORDINAL = re.compile(r"([0-9]{1,6})(st|nd|rd|th)\b", re.IGNORECASE)
_SUFFIXES = {1: "st", 2: "nd", 3: "rd"}


def read_words(text: str) -> tuple[int, int] | None:
    """(the number that the text begins with, where it ends); None if it begins with none, or the words are no number."""
    total, group, last, below, end, place = 0, 0, 100, 10**15, 0, 0
    while (found := _WORD.match(text, place)) is not None:
        word = found[0].lower()
        if word in _SMALL:
            # What follows is smaller: `twenty two`, `hundred two`; never `two three`, `ten five` or `twenty ten`.
            if last < 20 or (last < 100 and not 0 < _SMALL[word] < 10):
                return None
            last = _SMALL[word]
            group += last
        elif word == "hundred" and group and max(group, last) < 10:
            group, last = group * 100, 100
        elif word in MAGNITUDES and group and MAGNITUDES[word] < below:
            below = MAGNITUDES[word]
            total, group, last = total + group * below, 0, 100
        elif word == "and" and end and last >= 100 and _and_goes_on(text, found.end()):
            place = found.end() + 1
            continue
        else:
            break
        end = found.end()
        place = end + (text[end : end + 1] in {" ", "-"})
    return (total + group, end) if end else None


def _and_goes_on(text: str, place: int) -> bool:
    found = _WORD.match(text, place + 1)
    return found is not None and (found[0].lower() in _SMALL)


def read_ordinal(text: str) -> tuple[int, int] | None:
    """(the ordinal that the text begins with, where it ends): `3rd`, `third`, `twenty-first`."""
    if (found := _ORDINAL.match(text)) is not None:
        value = int(found[1])
        suffix = "th" if 10 < value % 100 < 20 else _SUFFIXES.get(value % 10, "th")
        return (value, found.end()) if found[2].lower() == suffix else None
    first = _WORD.match(text)
    if first is None:
        return None
    word = first[0].lower()
    if word in _ORDINALS:
        return _ORDINALS[word], first.end()
    if word in _TENS and text[first.end() : first.end() + 1] in ("-", " "):
        second = _WORD.match(text, first.end() + 1)
        unit = _ORDINALS.get(second[0].lower(), 10) if second is not None else 10
        if second is not None and unit < 10:
            return _TENS[word] + unit, second.end()
    return None
