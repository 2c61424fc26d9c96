"""Units of measure: what each measures and how large it is. The case of a symbol counts: mW is not MW, Mb is not MB.

A symbol may have several readings (`m` is a metre or a minute); a verdict must hold in the first and may not be contradicted
by another. What is not listed is no unit here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[int, int, int, int, int]
"""Powers of metre, kilogram, second, ampere, and of one that is counted: bit, mole."""
_NONE: Dimensions = (0, 0, 0, 0, 0)
_LENGTH: Dimensions = (1, 0, 0, 0, 0)
_MASS: Dimensions = (0, 1, 0, 0, 0)
_TIME: Dimensions = (0, 0, 1, 0, 0)


@dataclass(frozen=True, slots=True)
class Unit:
    """One reading of a unit."""

    factor: Fraction
    """How many of the base unit it is."""
    dimensions: Dimensions = _NONE
    label: str = ""
    """Of a unit that compares with its like only: `percent`, `currency:USD`, `degree`, `noun:dogs`."""
    offset: Fraction = Fraction(0)
    """Added after the factor: of temperatures."""
    customary: bool = False
    """An English unit, which people convert with rounded factors."""
    binary: bool = False
    """Bytes and bits: a kilobyte is 1000 or 1024."""


def _si(factor: str | int, dimensions: Dimensions, *, label: str = "") -> Unit:
    return Unit(Fraction(factor), dimensions, label)


def _english(factor: str, dimensions: Dimensions) -> Unit:
    return Unit(Fraction(factor), dimensions, customary=True)


_PREFIXES = {
    "T": "1e12", "G": "1e9", "M": "1e6", "k": "1e3", "m": "1e-3", "µ": "1e-6", "u": "1e-6", "n": "1e-9", "p": "1e-12",
}  # fmt: skip
_PREFIX_WORDS = {
    "tera": "1e12", "giga": "1e9", "mega": "1e6", "kilo": "1e3", "milli": "1e-3", "micro": "1e-6", "nano": "1e-9", "pico": "1e-12",
}  # fmt: skip
_BASES = {
    "m": _si(1, _LENGTH), "g": _si("1e-3", _MASS), "s": _si(1, _TIME), "A": _si(1, (0, 0, 0, 1, 0)),
    "Hz": _si(1, (0, 0, -1, 0, 0)), "N": _si(1, (1, 1, -2, 0, 0)), "Pa": _si(1, (-1, 1, -2, 0, 0)),
    "J": _si(1, (2, 1, -2, 0, 0)), "W": _si(1, (2, 1, -3, 0, 0)), "V": _si(1, (2, 1, -3, -1, 0)),
    "Ω": _si(1, (2, 1, -3, -2, 0)), "L": _si("1e-3", (3, 0, 0, 0, 0)), "l": _si("1e-3", (3, 0, 0, 0, 0)),
    "eV": _si("1.602176634e-19", (2, 1, -2, 0, 0)), "Wh": _si(3600, (2, 1, -2, 0, 0)), "mol": _si(1, (0, 0, 0, 0, 1), label="mole"),
}  # fmt: skip
_BASE_WORDS = {
    "m": "metre meter", "g": "gram gramme", "s": "second", "A": "ampere amp", "Hz": "hertz", "N": "newton", "Pa": "pascal",
    "J": "joule", "W": "watt", "V": "volt", "Ω": "ohm", "L": "litre liter", "mol": "mole",
}  # fmt: skip
_DATA = Unit(Fraction(8), (0, 0, 0, 0, 1), binary=True)
_BIT = Unit(Fraction(1), (0, 0, 0, 0, 1), binary=True)
_SYMBOLS: dict[str, Unit] = {
    "cm": _si("1e-2", _LENGTH), "dm": _si("1e-1", _LENGTH), "kg": _si(1, _MASS), "min": _si(60, _TIME), "h": _si(3600, _TIME),
    "hr": _si(3600, _TIME), "hrs": _si(3600, _TIME), "mins": _si(60, _TIME), "sec": _si(1, _TIME), "secs": _si(1, _TIME),
    "ha": _si(10**4, (2, 0, 0, 0, 0)), "cl": _si("1e-5", (3, 0, 0, 0, 0)), "cL": _si("1e-5", (3, 0, 0, 0, 0)),
    "dl": _si("1e-4", (3, 0, 0, 0, 0)), "dL": _si("1e-4", (3, 0, 0, 0, 0)), "cc": _si("1e-6", (3, 0, 0, 0, 0)),
    "hPa": _si(100, (-1, 1, -2, 0, 0)), "bar": _si(10**5, (-1, 1, -2, 0, 0)), "mbar": _si(100, (-1, 1, -2, 0, 0)),
    "kcal": _si(4184, (2, 1, -2, 0, 0)), "cal": _si("4.184", (2, 1, -2, 0, 0)), "bit": _BIT, "bits": _BIT,
    "kph": _si("1000/3600", (1, 0, -1, 0, 0)), "kmh": _si("1000/3600", (1, 0, -1, 0, 0)), "kmph": _si("1000/3600", (1, 0, -1, 0, 0)),
    "in": _english("0.0254", _LENGTH), "ft": _english("0.3048", _LENGTH), "yd": _english("0.9144", _LENGTH),
    "mi": _english("1609.344", _LENGTH), "lb": _english("0.45359237", _MASS), "lbs": _english("0.45359237", _MASS),
    "mph": _english("0.44704", (1, 0, -1, 0, 0)), "ly": Unit(Fraction(1), label="light-year"), "rpm": Unit(Fraction(1), label="rpm"),
    "%": Unit(Fraction(1), label="percent"), "pct": Unit(Fraction(1), label="percent"), "°": Unit(Fraction(1), label="degree"),
    "deg": Unit(Fraction(1), label="degree"), "rad": Unit(Fraction(1), label="radian"),
    "°C": Unit(Fraction(1), label="temperature", offset=Fraction("273.15")),
    "°F": Unit(Fraction(5, 9), label="temperature", offset=Fraction("273.15") - Fraction(160, 9)),
    "'": Unit(Fraction(1), label="prime"), '"': Unit(Fraction(1), label="double prime"), "''": Unit(Fraction(1), label="double prime"),
    "px": Unit(Fraction(1), label="pixel"),
    "oz": Unit(Fraction(1), label="ounce"),
}  # fmt: skip
_WORDS: dict[str, Unit] = {
    "centimetre centimeter": _SYMBOLS["cm"], "decimetre decimeter": _SYMBOLS["dm"], "minute": _SYMBOLS["min"],
    "hour": _SYMBOLS["h"], "day": _si(86400, _TIME), "week": _si(604800, _TIME), "hectare": _SYMBOLS["ha"],
    "month": Unit(Fraction(1), label="calendar"), "year yr": Unit(Fraction(12), label="calendar"),
    "decade": Unit(Fraction(120), label="calendar"), "century": Unit(Fraction(1200), label="calendar"),
    "millilitre milliliter": _si("1e-6", (3, 0, 0, 0, 0)), "tonne": _si(1000, _MASS), "byte": _DATA,
    "inch": _SYMBOLS["in"], "foot": _SYMBOLS["ft"], "yard": _SYMBOLS["yd"], "mile": _SYMBOLS["mi"],
    "ounce": _SYMBOLS["oz"], "ton": Unit(Fraction(1), label="ton"), "gallon": Unit(Fraction(1), label="gallon"),
    "pint": Unit(Fraction(1), label="pint"), "cup": Unit(Fraction(1), label="cup"), "acre": Unit(Fraction(1), label="acre"),
    "knot": Unit(Fraction(1), label="knot"), "light-year": _SYMBOLS["ly"], "percent": _SYMBOLS["%"],
    "degree": _SYMBOLS["°"], "radian": _SYMBOLS["rad"], "pixel": _SYMBOLS["px"], "celsius": _SYMBOLS["°C"],
    "fahrenheit": _SYMBOLS["°F"], "kelvin": Unit(Fraction(1), label="temperature"),
}  # fmt: skip
_PLURALS = {"inch": "inches", "foot": "feet", "century": "centuries", "hertz": "hertz", "celsius": "celsius", "percent": "percent"}
_FIXED = {
    "per cent": "percent", "degrees celsius": "celsius", "degree celsius": "celsius", "degrees fahrenheit": "fahrenheit",
    "degree fahrenheit": "fahrenheit", "degrees c": "celsius", "degrees f": "fahrenheit", "deg c": "celsius",
    "deg f": "fahrenheit", "° c": "celsius", "° f": "fahrenheit", "miles per hour": "mph", "km per hour": "km/h",
    "metric tons": "tonne", "metric ton": "tonne", "light years": "light-year", "light year": "light-year",
}  # fmt: skip
_CURRENCIES = {
    "$": "USD CAD AUD NZD SGD HKD MXN", "US$": "USD", "C$": "CAD", "A$": "AUD", "€": "EUR", "£": "GBP EGP", "¥": "JPY CNY", "₹": "INR", "₩": "KRW",
}  # fmt: skip
_CURRENCY_CODES = frozenset("USD EUR GBP JPY CNY CAD AUD NZD SGD HKD MXN INR KRW CHF SEK NOK DKK BRL RUB".split())
_CURRENCY_WORDS = {
    "dollar": _CURRENCIES["$"], "us dollar": "USD", "u.s. dollar": "USD", "buck": "USD", "euro": "EUR", "yen": "JPY", "yuan": "CNY", "rmb": "CNY",
    "renminbi": "CNY", "rupee": "INR", "won": "KRW",
}  # fmt: skip
_OF_CENTS = "USD EUR CAD AUD NZD"
_SQUARE = {"square ": 2, "sq ": 2, "sq. ": 2, "cubic ": 3, "cu ": 3, "cu. ": 3}
_POWER = re.compile(r"([A-Za-zµΩ]+) ?(?:(?P<two>²|\^2|\^\{2\}|2)|³|\^3|\^\{3\}|3)")
_NOUN = re.compile(r"[^\W\d_]{3,20}(?:[ -][^\W\d_]{2,20}){0,3}")
_NOT_NOUNS = frozenset(
    "or and to of is are was not per out over point but no than less more from by half quarter dozen hundred thousand million billion "
    "trillion plus minus times squared cubed if in on at with without about nearly almost approximately approx around exactly maybe "
    "perhaps unless except instead actually rather either neither versus vs until through between off o'clock oclock am pm first second".split()
)  # fmt: skip


def _money(codes: str, factor: Fraction = Fraction(1)) -> tuple[Unit, ...]:
    return tuple(Unit(factor, label=f"currency:{code}") for code in codes.split())


@functools.cache
def _table() -> tuple[dict[str, tuple[Unit, ...]], dict[str, tuple[Unit, ...]]]:
    """(symbols, whose case counts; words in lower case)."""
    symbols = {name: (unit,) for name, unit in _SYMBOLS.items()}
    words: dict[str, tuple[Unit, ...]] = {}

    def add(names: Iterable[str], unit: Unit) -> None:
        for name in names:
            words[name] = words[_PLURALS.get(name, name + "s")] = (unit,)

    for symbol, base in _BASES.items():
        symbols[symbol] = (base,)
        names = _BASE_WORDS.get(symbol, "").split()
        add(names, base)
        for prefix, factor in _PREFIXES.items():
            symbols.setdefault(prefix + symbol, (_scaled(base, factor),))
        for prefix, factor in _PREFIX_WORDS.items():
            add((prefix + name for name in names), _scaled(base, factor))
    for prefix, word in (("k", "kilo"), ("K", ""), ("M", "mega"), ("G", "giga"), ("T", "tera")):
        factor = _PREFIXES[prefix.lower() if prefix == "K" else prefix]
        for name, unit in (("b", _BIT), ("bit", _BIT), ("B", _DATA)):
            symbols[prefix + name] = (_scaled(unit, factor),)
        for name, unit in (("bps", _BIT), ("Bps", _DATA)):
            symbols[prefix + name] = (_scaled(Unit(unit.factor, (0, 0, -1, 0, 1), binary=True), factor),)
        if word:
            add([word + "byte"], _scaled(_DATA, factor))
            add([word + "bit"], _scaled(_BIT, factor))
    for names_of, unit in _WORDS.items():
        add(names_of.split(), unit)
    for name, codes in _CURRENCY_WORDS.items():
        words[name] = words[name + "s"] = _money(codes)
    symbols["m"] = (*symbols["m"], _SYMBOLS["min"])
    words["pound"] = words["pounds"] = (_SYMBOLS["lb"], *_money("GBP"))
    words["cent"] = words["cents"] = _money(_OF_CENTS, Fraction(1, 100))
    words["calorie"] = words["calories"] = (Unit(Fraction(1), label="calorie"),)
    for name, codes in _CURRENCIES.items():
        symbols[name] = _money(codes)
    for code in _CURRENCY_CODES:
        symbols[code] = _money(code)
    # A time of day, which another rule reads.
    for name in ("pm", "am", "PM", "AM"):
        symbols.pop(name, None)
    return symbols, words


def _scaled(unit: Unit, factor: str) -> Unit:
    return Unit(unit.factor * Fraction(factor), unit.dimensions, unit.label, binary=unit.binary)


def currency(text: str) -> tuple[tuple[Unit, ...], int] | None:
    """(readings of the currency that the text begins with, where it ends)."""
    for name in ("US$", "C$", "A$", "$", "€", "£", "¥", "₹", "₩"):
        if text.startswith(name):
            return _table()[0][name], len(name)
    code = text[:3]
    if code in _CURRENCY_CODES and not text[3:4].isalpha():
        return _table()[0][code], 3
    return None


def is_symbol(word: str) -> bool:
    """Whether a word, in whatever case, is written like the symbol of a unit."""
    return word.lower() in _lower_symbols()


@functools.cache
def _lower_symbols() -> frozenset[str]:
    return frozenset(name.lower() for name in _table()[0])


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
        if one is None or two is None or one[0].label or two[0].label:
            return None
        return (_ratio(one[0], two[0]),)
    if _NOUN.fullmatch(text) and not _NOT_NOUNS & set(re.split("[ -]", lower)):
        return (Unit(Fraction(1), label=f"noun:{lower}"),)
    return None


def _known(text: str) -> tuple[Unit, ...] | None:
    symbols, words = _table()
    found = symbols.get(text) or words.get(text.lower())
    if found is not None:
        return found
    lower = text.lower()
    if lower in _FIXED:
        name = _FIXED[lower]
        return words.get(name) or symbols.get(name) or read_unit(name)
    for word, power in _SQUARE.items():
        if lower.startswith(word):
            return _raised(_known(text[len(word) :]), power)
    if (power_found := _POWER.fullmatch(text)) is not None:
        return _raised(symbols.get(power_found[1]) or words.get(power_found[1].lower()), 2 if power_found["two"] else 3)
    return None


def _raised(units: tuple[Unit, ...] | None, power: int) -> tuple[Unit, ...] | None:
    if units is None or units[0].label or units[0].binary:
        return None
    unit = units[0]
    dimensions: Dimensions = tuple(exponent * power for exponent in unit.dimensions)  # type: ignore[assignment]
    return (Unit(unit.factor**power, dimensions, customary=unit.customary),)


def _ratio(above: Unit, below: Unit) -> Unit:
    dimensions: Dimensions = tuple(a - b for a, b in zip(above.dimensions, below.dimensions, strict=True))  # type: ignore[assignment]
    return Unit(
        above.factor / below.factor, dimensions, customary=above.customary or below.customary, binary=above.binary or below.binary
    )
