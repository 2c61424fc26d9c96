"""The units that rules know, as tables of text, made into objects at first use. What is not listed is no unit here."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[int, int, int, int, int]
"""Powers of metre, kilogram, second, ampere and bit."""
NO_DIMENSIONS: Dimensions = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Unit:
    """One reading of a unit."""

    factor: Fraction
    """How many of the base unit it is."""
    dimensions: Dimensions = NO_DIMENSIONS
    label: str = ""
    """Of a unit that compares with its like only: `percent`, `currency:USD`, `degree`, `noun:dogs`."""
    offset: Fraction = Fraction(0)
    """Added after the factor: of temperatures."""
    customary: bool = False
    """An English unit, which people convert with rounded factors."""
    binary: bool = False
    """Bytes and bits: a kilobyte is 1000 or 1024."""


_WITH_PREFIXES = """
m    1                1  0  0  0   metre meter
g    1e-3             0  1  0  0   gram gramme
s    1                0  0  1  0   second
A    1                0  0  0  1   ampere amp
Hz   1                0  0 -1  0   hertz
N    1                1  1 -2  0   newton
Pa   1               -1  1 -2  0   pascal
J    1                2  1 -2  0   joule
W    1                2  1 -3  0   watt
V    1                2  1 -3 -1   volt
Ω    1                2  1 -3 -2   ohm
L    1e-3             3  0  0  0   litre liter
l    1e-3             3  0  0  0
eV   1.602176634e-19  2  1 -2  0
Wh   3600             2  1 -2  0
"""
"""Symbol, factor, powers of metre, kilogram, second and ampere, and words."""
_PREFIXES = {
    "T": ("1e12", "tera"), "G": ("1e9", "giga"), "M": ("1e6", "mega"), "k": ("1e3", "kilo"), "m": ("1e-3", "milli"),
    "µ": ("1e-6", "micro"), "u": ("1e-6", "micro"), "n": ("1e-9", "nano"), "p": ("1e-12", "pico"),
}  # fmt: skip
_WITHOUT_PREFIXES = """
cm 1e-2        1  0  0 0  centimetre centimeter
dm 1e-1        1  0  0 0  decimetre decimeter
kg 1           0  1  0 0
-  1000        0  1  0 0  tonne
-  1000        0  1  0 0  metric_ton
min,mins 60    0  0  1 0  minute
h,hr,hrs 3600  0  0  1 0  hour
sec,secs 1     0  0  1 0
-  86400       0  0  1 0  day
-  604800      0  0  1 0  week
ha 1e4         2  0  0 0  hectare
cl,cL 1e-5     3  0  0 0  centilitre centiliter
dl,dL 1e-4     3  0  0 0  decilitre deciliter
cc 1e-6        3  0  0 0
hPa 100       -1  1 -2 0  hectopascal
bar 1e5       -1  1 -2 0
mbar 100      -1  1 -2 0
kcal 4184      2  1 -2 0
cal 4.184      2  1 -2 0
kph,kmh,kmph 5/18   1 0 -1 0
in 0.0254      1  0  0 0  inch
ft 0.3048      1  0  0 0  foot
yd 0.9144      1  0  0 0  yard
mi 1609.344    1  0  0 0  mile
lb,lbs 0.45359237   0 1 0 0
mph 0.44704    1  0 -1 0
"""
_CUSTOMARY = frozenset({"in", "ft", "yd", "mi", "lb,lbs", "mph"})
_LABELLED = """
%,pct  percent     1    percent per_cent
°,deg  degree      1    degree
rad    radian      1    radian
px     pixel       1    pixel
oz     ounce       1    ounce
ly     light-year  1    light-year light_year
rpm    rpm         1
'      prime       1
",''   double_prime 1
mol    mole        1    mole
mmol   mole        1e-3 millimole
-      calendar    1    month
yr,yrs calendar    12   year
-      calendar    120  decade
-      calendar    1200 century
-      calorie     1    calorie
-      ton         1    ton
-      gallon      1    gallon
-      pint        1    pint
-      cup         1    cup
-      acre        1    acre
-      knot        1    knot
"""
"""Symbols, label, factor, words: they compare with their like only, being vague or measuring what others do not."""
_TEMPERATURES = """
273.15        1    °C|° C          celsius degree_celsius degrees_celsius degrees_c deg_c
255.37222     5/9  °F|° F          fahrenheit degree_fahrenheit degrees_fahrenheit degrees_f deg_f
0             1    -               kelvin kelvins
"""
_CURRENCIES = """
USD CAD AUD NZD SGD HKD MXN  $       dollar
USD                          US$     us_dollar u.s._dollar buck
CAD                          C$      canadian_dollar
AUD                          A$      australian_dollar
EUR                          €       euro
GBP EGP                      £       -
JPY CNY                      ¥       -
JPY                          -       yen
CNY                          -       yuan rmb renminbi
INR                          ₹       rupee
KRW                          ₩       won
"""
CURRENCY_CODES = {
    "USD", "EUR", "GBP", "JPY", "CNY", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN", "INR", "KRW", "CHF", "SEK", "NOK", "BRL",
}  # fmt: skip
_OF_CENTS = ("USD", "EUR", "CAD", "AUD", "NZD")
_PLURALS = {
    "inch": "inches",
    "foot": "feet",
    "century": "centuries",
    "hertz": "hertz",
    "percent": "percent",
    "per cent": "per cent",
}
_TIMES_OF_DAY = ("pm", "am", "PM", "AM")
CURRENCY_SIGNS = ("US$", "C$", "A$", "$", "€", "£", "¥", "₹", "₩")
CURRENCY_FIRST = frozenset(sign[0] for sign in (*CURRENCY_SIGNS, *CURRENCY_CODES))


class Units:
    """What a spelling may mean: symbols, whose case counts, and words in lower case."""

    def __init__(self) -> None:
        self.symbols: dict[str, tuple[Unit, ...]] = {}
        self.words: dict[str, tuple[Unit, ...]] = {}
        self._add_metric()
        self._add_others()
        self._add_data()
        self._add_temperatures()
        self._add_money()
        # A symbol with two readings: a verdict must hold in the first and may not be contradicted by the other.
        self.symbols["m"] = (*self.symbols["m"], *self.symbols["min"])
        for name in _TIMES_OF_DAY:
            self.symbols.pop(name, None)
        self.lower_symbols = frozenset(name.lower() for name in self.symbols)

    def _add_words(self, names: Iterable[str], units: tuple[Unit, ...]) -> None:
        for name in names:
            name = name.replace("_", " ")
            self.words[name] = self.words[_PLURALS.get(name, name + "s")] = units

    def _add_metric(self) -> None:
        for line in _WITH_PREFIXES.strip().splitlines():
            symbol, factor, *rest = line.split()
            base = Unit(Fraction(factor), _dimensions(rest[:4]))
            self.symbols[symbol] = (base,)
            self._add_words(rest[4:], (base,))
            for prefix, (scale, word) in _PREFIXES.items():
                unit = (Unit(base.factor * Fraction(scale), base.dimensions),)
                self.symbols.setdefault(prefix + symbol, unit)
                self._add_words((word + name for name in rest[4:]), unit)

    def _add_others(self) -> None:
        for line in _WITHOUT_PREFIXES.strip().splitlines():
            symbols, factor, *rest = line.split()
            unit = (Unit(Fraction(factor), _dimensions(rest[:4]), customary=symbols in _CUSTOMARY),)
            self.symbols |= dict.fromkeys(symbols.split(","), unit)
            self._add_words(rest[4:], unit)
        for line in _LABELLED.strip().splitlines():
            symbols, label, factor, *words = line.split()
            unit = (Unit(Fraction(factor), label=label),)
            self.symbols |= dict.fromkeys(symbols.split(","), unit)
            self._add_words(words, unit)
        del self.symbols["-"]

    def _add_data(self) -> None:
        for prefix, scale, word in (
            ("", "1", ""), ("k", "1e3", "kilo"), ("K", "1e3", "kilo"), ("M", "1e6", "mega"), ("G", "1e9", "giga"),
            ("T", "1e12", "tera"),
        ):  # fmt: skip
            for size, names in ((8, ("B", "byte")), (1, ("b", "bit"))):
                unit = Unit(size * Fraction(scale), (0, 0, 0, 0, 1), binary=True)
                self._add_words([word + names[1]], (unit,))
                if prefix:  # B and b alone are billions and labels
                    self.symbols[prefix + names[0]] = self.symbols[prefix + names[1]] = (unit,)
                    rate = Unit(unit.factor, (0, 0, -1, 0, 1), binary=True)
                    self.symbols[prefix + names[0] + "ps"] = (rate,)

    def _add_temperatures(self) -> None:
        for line in _TEMPERATURES.strip().splitlines():
            offset, factor, rest = line.split(maxsplit=2)
            symbols, _, words = rest.partition("  ")
            exact = Fraction("273.15") - Fraction(160, 9) if factor == "5/9" else Fraction(offset)
            unit = (Unit(Fraction(factor), label="temperature", offset=exact),)
            self.symbols |= dict.fromkeys((symbol for symbol in symbols.split("|") if symbol != "-"), unit)
            self.words |= dict.fromkeys((name.replace("_", " ") for name in words.split()), unit)

    def _add_money(self) -> None:
        for line in _CURRENCIES.strip().splitlines():
            parts = line.split()
            codes = [part for part in parts if part in CURRENCY_CODES or part == "EGP"]
            sign, *names = parts[len(codes) :]
            if sign != "-":
                self.symbols[sign] = _money(codes)
            self._add_words((name for name in names if name != "-"), _money(codes))
        for code in CURRENCY_CODES:
            self.symbols[code] = _money([code])
        self._add_words(["cent"], _money(_OF_CENTS, Fraction(1, 100)))
        self._add_words(["pound"], (*self.symbols["lb"], *_money(["GBP"])))


def _dimensions(parts: list[str]) -> Dimensions:
    metre, kilogram, second, ampere = map(int, parts)
    return metre, kilogram, second, ampere, 0


def _money(codes: Iterable[str], factor: Fraction = Fraction(1)) -> tuple[Unit, ...]:
    return tuple(Unit(factor, label=f"currency:{code}") for code in codes)


@functools.cache
def units() -> Units:
    """All of them, made at first use."""
    return Units()
