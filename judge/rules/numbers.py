"""Plain numbers: their exact value, and what their last written digit is worth.

Two numbers are equal if their values are, to the last digit. They differ if they are at least one unit of the coarser last
digit apart; in between is where rounding lives, and that is not for a rule.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import NamedTuple

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?:(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]))|(?P<spaced>[0-9]{1,3}(?: [0-9]{3})+(?![0-9/]))"
    r"|(?P<whole>[0-9]{1,60}))?"
    r"(?P<decimals>\.[0-9]{0,60})?"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,3})(?![0-9.,]))?"
)
_TIMES_TEN = re.compile(
    r" ?(?:×|x|\*|·|\\times|\\cdot) ?10 ?"
    r"(?:(?:\^|\*\*) ?(?:\{ ?([+-]?[0-9]{1,3}) ?\}|\(([+-]?[0-9]{1,3})\)|([+-]?[0-9]{1,3})(?![0-9.]))"
    r"|([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}))"
)
_BEFORE_TEN = frozenset(" ×x*·\\")
_FRACTION_AFTER = re.compile(
    r" ?(?P<slash>/) ?(?P<below>[0-9]{1,30})(?![0-9.,/])| (?P<num>[0-9]{1,30})/(?P<den>[0-9]{1,30})(?![0-9.,/])"
    r"| ?(?P<vulgar>[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])"
)
_LATEX_FRACTION = re.compile(
    r"(?P<sign>[+-]?) ?(?P<whole>[0-9]{0,30}) ?\\[dtc]?frac ?"
    r"(?:\{ ?(?P<minus>-?)(?P<num>[0-9]{1,30}) ?\} ?\{ ?(?P<den>[0-9]{1,30}) ?\}|(?P<one>[0-9]) ?(?P<two>[0-9])(?![0-9]))"
)
_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
_ABOVE = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_MAX_EXPONENT = 400
_COARSE_FROM_DIGITS, _COARSE_TO_DIGITS, _COARSE_ZEROS = 5, 12, 3
"""12,000 people may be 12,345 rounded; 2000 may be a year, and an identifier has more digits."""
_TINY = Fraction(1, 10**9)
_POWER_IS_EXACT_TO = 5
"""10^3 is a thousand; 10^9 may be an order of magnitude."""


class Number(NamedTuple):
    """A number as written."""

    value: Fraction | int
    last_place: Fraction | int = 0
    """How far off a value may be that is told as this one: a one in the last written place, because people round and cut;
    half of it for coarse numbers, which are rounded; 0 for a form that is exact, such as a fraction."""
    form: str = "integer"
    """`integer`, `decimal`, `power`, `fraction`, `slash` (3/4, which may be a date or a score), `mixed`, `word`."""
    text: str = ""
    """The digits as written, without separators."""
    other: Fraction | int | None = None
    """What it is to those who write the decimal comma: 1,234 may be 1.234, and 1.234 may be 1,234."""
    below: int = 1
    """Of a slash the number behind it."""
    doubtful: bool = False
    """Digits in groups with spaces may also be several numbers."""


def integer(digits: str, *, negative: bool = False) -> Number:
    """A whole number from its digits, at most 60."""
    value = -int(digits) if negative else int(digits)
    return Number(value, _worth_of_last_place(digits), "integer", digits)


def same_integers(gold: str, answer: str) -> bool | None:
    """`same_number` for digits alone, of at most 60 on each side."""
    if int(gold) == int(answer):
        return True if gold == answer else None  # 007 is not 7
    if gold[-_COARSE_ZEROS:] == "000" or answer[-_COARSE_ZEROS:] == "000":
        return same_number(integer(gold), integer(answer))
    return False


def _worth_of_last_place(digits: str) -> Fraction | int:
    if not _COARSE_FROM_DIGITS <= len(digits) <= _COARSE_TO_DIGITS or digits[-_COARSE_ZEROS:] != "0" * _COARSE_ZEROS:
        return 1
    return Fraction(10 ** (len(digits) - len(digits.rstrip("0"))), 2)


def read_number(text: str, start: int = 0) -> tuple[Number, int] | None:
    """(the number that begins at `start`, where it ends); None if none begins there."""
    if "\\" in text and (found := _LATEX_FRACTION.match(text, start)):
        return _latex_fraction(found)
    found = _NUMBER.match(text, start)
    if found is None or (found["grouped"] or found["spaced"] or found["whole"] or found["decimals"] or ".") == ".":
        vulgar = _VULGAR.get(text[start : start + 1])
        return None if vulgar is None else (Number(Fraction(*vulgar), form="fraction", text=text[start]), start + 1)
    end, negative = found.end(), found["sign"] == "-"
    digits = (found["grouped"] or found["spaced"] or found["whole"] or "").replace(",", "").replace(" ", "")
    decimals = (found["decimals"] or "")[1:]
    power = _TIMES_TEN.match(text, end) if text[end : end + 1] in _BEFORE_TEN else None
    if found["exponent"] is not None or power is not None:
        if found["exponent"] is not None and power is not None:
            return None
        exponent = int(found["exponent"] or (power[1] or power[2] or power[3] or power[4].translate(_ABOVE)))  # type: ignore[index]
        if abs(exponent) > _MAX_EXPONENT:
            return None
        value = _decimal(digits, decimals, exponent)
        place = _power_of_ten(exponent - len(decimals)) if decimals else _power_of_ten(exponent) / 2
        return Number(-value if negative else value, place, "power", digits + decimals), power.end() if power else end
    if found["decimals"] is None:
        goes_on = end < len(text) and not found["spaced"]
        if goes_on and (fraction := _FRACTION_AFTER.match(text, end)) is not None:
            return _fraction_after(digits, fraction, negative=negative)
        number = integer(digits, negative=negative)
        if found["grouped"] and found["grouped"].count(",") == 1 and digits[0] != "0":
            number = Number(number.value, number.last_place, "integer", digits, other=Fraction(number.value, 1000))
        elif found["spaced"]:
            number = Number(number.value, number.last_place, "integer", digits, doubtful=True)
        return number, end
    value = _decimal(digits, decimals, 0)
    value = -value if negative else value
    other = value * 1000 if len(decimals) == 3 and digits[:1] not in ("", "0") and len(digits) <= 3 else None
    form = "decimal" if decimals else "integer"
    written = f"{digits}.{decimals}" if decimals else digits
    return Number(value, _power_of_ten(-len(decimals)), form, written, other=other, doubtful=bool(found["spaced"])), end


def _decimal(digits: str, decimals: str, exponent: int) -> Fraction | int:
    mantissa, exponent = int((digits + decimals) or "0"), exponent - len(decimals)
    return mantissa * 10**exponent if exponent >= 0 else Fraction(mantissa, 10**-exponent)


@functools.cache
def _power_of_ten(exponent: int) -> Fraction:
    return Fraction(10**exponent) if exponent >= 0 else Fraction(1, 10**-exponent)


def _fraction_after(digits: str, found: re.Match[str], *, negative: bool) -> tuple[Number, int] | None:
    """1/2, 3 1/2 or 3½, of which the whole part has been read."""
    if found["slash"]:
        below = int(found["below"])
        if below == 0:
            return None
        value = Fraction(int(digits), below)
        form, written = "slash", f"{digits}/{found['below']}"
    else:
        num, den = _VULGAR[found["vulgar"]] if found["vulgar"] else (int(found["num"]), int(found["den"]))
        if den == 0 or num >= den:
            return None
        value, form, written, below = int(digits) + Fraction(num, den), "mixed", f"{digits} {num}/{den}", den
    return Number(-value if negative else value, 0, form, written, below=below), found.end()


def _latex_fraction(found: re.Match[str]) -> tuple[Number, int] | None:
    num, den = int(found["num"] or found["one"]), int(found["den"] or found["two"])
    if den == 0 or (found["whole"] and (num >= den or found["minus"])):
        return None
    negative = (found["sign"] == "-") != (found["minus"] == "-")
    value = int(found["whole"] or 0) + Fraction(num, den)
    # 3\frac{1}{2} is read as three and a half by people, and as a product by some programs.
    return Number(-value if negative else value, form="mixed" if found["whole"] else "fraction", text=found[0]), found.end()


def power_of_ten_alone(text: str) -> Number | None:
    """10^9 as a number: exact if small, else perhaps an order of magnitude."""
    found = _TIMES_TEN.fullmatch("×" + text)
    if found is None:
        return None
    exponent = int(found[1] or found[2] or found[3] or found[4].translate(_ABOVE))
    if abs(exponent) > _MAX_EXPONENT:
        return None
    value = _power_of_ten(exponent)
    return Number(value, 0 if abs(exponent) <= _POWER_IS_EXACT_TO else value / 2, "power", text)


def same_number(gold: Number, answer: Number) -> bool | None:
    """True if equal, False if surely not, None where rounding or another way of writing may be meant."""
    if gold.value == answer.value:
        return _surely_equal(gold, answer)
    if gold.doubtful or answer.doubtful or _may_be_rounded(gold, answer):
        return None
    if {gold.form, answer.form} & {"slash"} and _slash_may_mean_more(gold, answer):
        return None
    return False


def _surely_equal(gold: Number, answer: Number) -> bool | None:
    if gold.text == answer.text:
        return True
    forms = {gold.form, answer.form}
    if is_padded(gold) or is_padded(answer):
        return None  # 007 is not 7
    if "slash" in forms:
        slash = gold if gold.form == "slash" else answer
        # 12/25 and 24/50 may be dates or scores; 0.5 is no way to write a date.
        return None if gold.form == answer.form or slash.value.denominator != slash.below else True
    return True


def is_padded(number: Number) -> bool:
    """Whether it begins with a zero that a number does not need, as an identifier may."""
    return (
        len(number.text) > 1 and number.text[0] == "0" and number.text[1].isdigit() and number.form in ("integer", "decimal")
    )


def may_be_versions(gold: Number, answer: Number) -> bool:
    """3.10 is not version 3.1."""
    return _minor_version(gold.text, answer.text) or _minor_version(answer.text, gold.text)


def _minor_version(longer: str, shorter: str) -> bool:
    return longer == shorter + "0" and len(shorter.partition(".")[2]) == 1 and len(shorter) <= 4


def _may_be_rounded(gold: Number, answer: Number) -> bool:
    """Closer than one in the coarser last place; also in the other reading of a lone comma or point."""
    apart = gold.value - answer.value
    if -gold.last_place < apart < gold.last_place or -answer.last_place < apart < answer.last_place:
        return True
    for one, two in ((gold, answer), (answer, gold)):
        place = Fraction(two.last_place) if two.form == "decimal" else _TINY
        if one.other is not None and abs(Fraction(one.other) - two.value) < place:
            return True
    return False


def _slash_may_mean_more(gold: Number, answer: Number) -> bool:
    """8/10 may be answered by 8, and 3/4 may be the fourth of March."""
    slash, other = (gold, answer) if gold.form == "slash" else (answer, gold)
    above = slash.value * slash.below
    if other.form == "slash":
        return other.value * other.below == slash.below and above == other.below
    return other.value in (above, slash.below) or other.text == slash.text.replace("/", ".")
