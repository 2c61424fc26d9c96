"""A number, perhaps with its unit: what is compared is the quantity, to the last digit.

A unit on one side only is for a judge: whether `12 cm` answers a gold `12`, or `0.5` a gold `50%`, depends on the question.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import NamedTuple

from judge.rules.number_words import FIRST_WORDS, MAGNITUDES, read_ordinal, read_words
from judge.rules.numbers import Number, integer, may_be_versions, power_of_ten_alone, read_number, same_integers, same_number
from judge.rules.unit_table import CURRENCY_FIRST, Unit
from judge.rules.units import currency, read_unit

_MAX_CHARS = 120
_MAX_DIGITS = 60
_FIRST = frozenset("0123456789.+-$€£¥₹₩\\½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞")
_WRAPPED = re.compile(r"\\(?:text|textrm|mathrm|mbox|rm|textbf)\s*\{([^{}]*)\}")
_LATEX = {
    "{,}": ",", r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", "\\ ": " ", "~": " ", r"\%": "%", r"\$": "$",
    r"^{\circ}": "°", r"^\circ": "°", r"\degree": "°", r"\circ": "°", r"\times": "×", r"\cdot": "×", r"\mu": "µ",
    r"\Omega": "Ω",
}  # fmt: skip
_FIRST_WORD = re.compile(r"[A-Za-z]{2,12}(?![A-Za-z])")
_MAGNITUDE = re.compile(r" ?(thousand|million|billion|trillion|bn)\b", re.IGNORECASE)
_SHORT_MAGNITUDE = re.compile(r" ?(k|K|m|M|mn|mio|b|B|bn|T)(?![A-Za-z])")
_SHORT = {"k": 3, "m": 6, "mn": 6, "mio": 6, "b": 9, "bn": 9, "t": 12}
_ASKS_NO_NUMBER = re.compile(
    r"\b(?:scores?|won|win|beat|defeat(?:ed)?|dates?|days?|when|records?|results?|odds|signature|pages?|blood pressure)\b"
)
_ASKS_LABEL = re.compile(
    r"\b(?:versions?|releases?|sections?|chapters?|figures?|ids?|codes?|serial|phone|zip|account|isbn|models?|part number)\b"
)
_ASKS_SHARE = re.compile(r"percent|%|share|proportion|fraction|probability|rate|ratio|chance|efficiency|likel")
_ASKS_SCALE = re.compile(r"thousand|million|billion|trillion|\bin [a-z]{1,3}\b|units? of")
_SCALES = frozenset({10**3, 10**6, 10**9, 10**12})
_MAX_QUESTION_CHARS = 4000
_CLOSE_FRAC = Fraction(1, 20)
_BINARY_FRAC = Fraction(3, 20)
"""1.024 to the fourth is 1.1."""
_INCOMPARABLE_MASS = frozenset({(0, 1, 0, 0, 0), (1, 1, -2, 0, 0), (3, 0, 0, 0, 0)})
"""Mass, force and volume: a weight may be told in any of them."""


class Quantity(NamedTuple):
    """What a whole text says."""

    number: Number
    units: tuple[Unit, ...] = ()
    """Readings of its unit; none for a plain number."""


def numbers_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between two texts that are quantities as a whole."""
    if not question and _plain(gold) and _plain(answer):
        return same_integers(gold, answer)
    expected = read_quantity(gold)
    if expected is None:
        return None
    given = read_quantity(answer)
    if given is None or bool(expected.units) != bool(given.units):
        return None
    forms = {expected.number.form, given.number.form}
    if not expected.units:
        decided = None if may_be_versions(expected.number, given.number) else same_number(expected.number, given.number)
    else:
        decided = _same_quantity(expected, given)
    if not question or decided is None:
        return decided
    asked = question[-_MAX_QUESTION_CHARS:].lower()
    if decided:
        return None if _means_another_thing(forms, expected, given, asked) else True
    return None if not expected.units and _differs_by_scale(expected.number.value, given.number.value, asked) else False


def _means_another_thing(forms: set[str], expected: Quantity, given: Quantity, question: str) -> bool:
    if "slash" in forms and _ASKS_NO_NUMBER.search(question):
        return True
    return expected.number.text != given.number.text and not expected.units and bool(_ASKS_LABEL.search(question))


def _differs_by_scale(expected: Fraction | int, given: Fraction | int, question: str) -> bool:
    """Half may be told as 0.5 or 50 where a percentage is asked, and 5 million as 5 where millions are."""
    if not expected or not given:
        return False
    ratio = Fraction(expected) / given
    ratio = max(ratio, 1 / ratio)
    return (ratio == 100 and bool(_ASKS_SHARE.search(question))) or (ratio in _SCALES and bool(_ASKS_SCALE.search(question)))


def _plain(text: str) -> bool:
    """Whether a text is digits alone."""
    return text.isdigit() and text.isascii() and len(text) <= _MAX_DIGITS


@functools.lru_cache(8192)
def read_quantity(text: str) -> Quantity | None:
    """A number with what stands behind or before it; None unless that is the whole text.

    Args:
        text: Without marks of layout (`layout.peel`).
    """
    if _plain(text):
        return Quantity(integer(text))
    if not text or len(text) > _MAX_CHARS:
        return None
    if text[0] not in _FIRST:
        if text[0].isupper() and ("$" in text[1:3] or (text[:3].isupper() and text[:3].isalpha())):
            return _money(text, "") or _in_words(text)
        return _in_words(text) if text[0].isalpha() else None
    if "\\" in text or "{,}" in text:
        text = _without_latex(text)
        if not text:
            return None
    if (
        text.startswith("10")
        and text[2:3] in ("^", "*", " ", *"⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        and (power := power_of_ten_alone(text)) is not None
    ):
        return Quantity(power)
    sign = text[0] if text[0] in "+-" else ""
    money = _money(text[len(sign) :], sign) if text[len(sign) : len(sign) + 1] in CURRENCY_FIRST else None
    return money or _with_unit(text) or _ordinal(text)


def _without_latex(text: str) -> str:
    text = _WRAPPED.sub(lambda found: found[1], text)
    for command, sign in _LATEX.items():
        text = text.replace(command, sign)
    return " ".join(text.split())


def _money(text: str, sign: str) -> Quantity | None:
    found = currency(text)
    if found is None:
        return None
    units, end = found
    end += text[end : end + 1] == " "
    read = read_number(text, end)
    if read is None or (sign and text[end] in "+-"):
        return None
    number, end = read
    if number.form == "slash":
        return None
    if (short := _SHORT_MAGNITUDE.match(text, end)) is not None and short.end() == len(text):
        number, end = _scaled(number, 10 ** _SHORT[short[1].lower()]), len(text)
    else:
        number, end = _with_magnitude(number, text, end)
    if text[end:].strip():
        trailing = read_unit(text[end:])
        if trailing is None or not {unit.label for unit in trailing} & {unit.label for unit in units}:
            return None
    return Quantity(_negative(number) if sign == "-" else number, units)


def _with_unit(text: str) -> Quantity | None:
    read = read_number(text)
    if read is None:
        return None
    number, end = read
    number, end = _with_magnitude(number, text, end)
    if end == len(text):
        return Quantity(number)
    if text[end] == "-" and text[end + 1 : end + 2].isalpha():
        end += 1  # a 5-minute
    if text[end:] == "s" and text[end - 1] == "0":
        return None  # the 1990s
    units = read_unit(text[end:])
    return None if units is None else Quantity(number, units)


def _in_words(text: str) -> Quantity | None:
    if (first := _FIRST_WORD.match(text)) is None or first[0].lower() not in FIRST_WORDS:
        return None
    read = read_words(text)
    if read is None:
        return _ordinal(text)
    value, end = read
    if end < len(text) and text[end] not in " -":
        return None
    number = Number(Fraction(value), integer(str(value)).last_place, "word", str(value))
    if end == len(text):
        return Quantity(number)
    units = read_unit(text[end + 1 :])
    return _ordinal(text) if units is None else Quantity(number, units)


def _ordinal(text: str) -> Quantity | None:
    """`3rd`, `third`, `19th century`: they compare with ordinals of the same thing."""
    read = read_ordinal(text)
    if read is None:
        return None
    value, end = read
    rest = text[end:].strip().lower()
    if rest and not re.fullmatch(r"[^\W\d_]{3,20}(?: [^\W\d_]{2,20}){0,2}", rest):
        return None
    return Quantity(
        Number(Fraction(value), Fraction(1), "ordinal", str(value)), (Unit(Fraction(1), label=f"ordinal:{rest}"),)
    )


def _with_magnitude(number: Number, text: str, end: int) -> tuple[Number, int]:
    found = _MAGNITUDE.match(text, end)
    if found is None or number.form in ("slash", "power"):
        return number, end
    return _scaled(number, MAGNITUDES.get(found[1].lower(), 10**9)), found.end()


def _scaled(number: Number, factor: int) -> Number:
    place = number.last_place * factor
    return Number(number.value * factor, Fraction(place) / 2 if number.form == "integer" else place, "word", "")


def _negative(number: Number) -> Number:
    return Number(-number.value, number.last_place, number.form, number.text, below=number.below, doubtful=number.doubtful)


def _same_quantity(gold: Quantity, answer: Quantity) -> bool | None:
    """True if the first readings agree; False if no reading does."""
    first = _same_reading(gold.number, gold.units[0], answer.number, answer.units[0])
    if first or len(gold.units) == len(answer.units) == 1:
        return first
    verdicts = {_same_reading(gold.number, one, answer.number, two) for one in gold.units for two in answer.units}
    return False if verdicts == {False} else None


def _same_reading(gold: Number, expected: Unit, answer: Number, given: Unit) -> bool | None:
    if (expected.label, expected.dimensions) != (given.label, given.dimensions):
        return _differ(expected, given)
    if (expected.factor, expected.offset) == (given.factor, given.offset):
        return same_number(gold, answer)
    one = gold.value * expected.factor + expected.offset
    two = answer.value * given.factor + given.offset
    apart = abs(one - two)
    if apart == 0:
        # A gigabyte is 1000 megabytes, or 1024.
        return None if expected.binary else True
    largest = max(abs(one), abs(two))
    if apart < max(gold.last_place * expected.factor, answer.last_place * given.factor):
        return None
    if expected.binary and apart < _BINARY_FRAC * largest:
        return None
    if (expected.customary or given.customary) and apart < _CLOSE_FRAC * largest:
        return None
    return None if gold.doubtful or answer.doubtful else False


def _differ(expected: Unit, given: Unit) -> bool | None:
    """Whether two units that measure different things are surely not told for each other."""
    if expected.label.startswith("currency:") and given.label.startswith("currency:"):
        return False
    if expected.label or given.label:
        return None
    return None if {expected.dimensions, given.dimensions} <= _INCOMPARABLE_MASS else False
