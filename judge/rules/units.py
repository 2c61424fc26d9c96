"""Reading a text as a unit of measure. The case of a symbol counts: mW is not MW, Mb is not MB."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from judge.rules.unit_table import CURRENCY_CODES, CURRENCY_SIGNS, Dimensions, Unit, units

_POWERS = {"square ": 2, "sq ": 2, "sq. ": 2, "cubic ": 3, "cu ": 3, "cu. ": 3}
_POWER = re.compile(r"([A-Za-zµΩ]+) ?(?:(?P<two>²|\^2|\^\{2\}|2)|³|\^3|\^\{3\}|3)")
_NOUN = re.compile(r"[^\W\d_]{3,20}(?:[ -][^\W\d_]{2,20}){0,3}")
_WORDS_THAT_COUNT_NOTHING = """
or and to of is are was not per out over point but no than less more from by half quarter dozen hundred thousand million
billion trillion plus minus times squared cubed if in on at with without about nearly almost approximately approx around
exactly maybe perhaps unless except instead actually rather either neither versus vs until through between off am pm
first second
"""
_NOT_NOUNS = frozenset(_WORDS_THAT_COUNT_NOTHING.split())


def currency(text: str) -> tuple[tuple[Unit, ...], int] | None:
    """(readings of the currency that the text begins with, where it ends)."""
    for sign in CURRENCY_SIGNS:
        if text.startswith(sign):
            return units().symbols[sign], len(sign)
    code = text[:3]
    return (units().symbols[code], 3) if code in CURRENCY_CODES and not text[3:4].isalpha() else None


def is_symbol(word: str) -> bool:
    """Whether a word, in whatever case, is written like the symbol of a unit."""
    return word.lower() in units().lower_symbols


@functools.lru_cache(4096)
def read_unit(text: str) -> tuple[Unit, ...] | None:
    """Readings of a whole text as a unit; a plain noun is one that compares with itself only. None if it is neither."""
    text = text.strip()
    known = _known(text)
    if known is not None:
        return known
    lower = text.lower()
    above, slash, below = text.partition("/")
    if not slash and " per " in lower:
        place = lower.index(" per ")
        above, slash, below = text[:place], "/", text[place + 5 :]
    if slash:
        one, two = _known(above.strip()), _known(below.strip())
        return None if one is None or two is None or one[0].label or two[0].label else (_ratio(one[0], two[0]),)
    if _NOUN.fullmatch(text) and not _NOT_NOUNS & set(re.split("[ -]", lower)):
        return (Unit(Fraction(1), label=f"noun:{lower}"),)
    return None


def _known(text: str) -> tuple[Unit, ...] | None:
    found = units().symbols.get(text) or units().words.get(text.lower())
    if found is not None:
        return found
    for word, power in _POWERS.items():
        if text.lower().startswith(word):
            return _raised(_known(text[len(word) :]), power)
    if (power_found := _POWER.fullmatch(text)) is not None:
        base = units().symbols.get(power_found[1]) or units().words.get(power_found[1].lower())
        return _raised(base, 2 if power_found["two"] else 3)
    return None


def _raised(base: tuple[Unit, ...] | None, power: int) -> tuple[Unit, ...] | None:
    if base is None or base[0].label or base[0].binary:
        return None
    metre, kilogram, second, ampere, bit = (exponent * power for exponent in base[0].dimensions)
    return (Unit(base[0].factor ** power, (metre, kilogram, second, ampere, bit), customary=base[0].customary),)


def _ratio(above: Unit, below: Unit) -> Unit:
    metre, kilogram, second, ampere, bit = (a - b for a, b in zip(above.dimensions, below.dimensions, strict=True))
    dimensions: Dimensions = (metre, kilogram, second, ampere, bit)
    customary, binary = above.customary or below.customary, above.binary or below.binary
    return Unit(above.factor / below.factor, dimensions, customary=customary, binary=binary)
