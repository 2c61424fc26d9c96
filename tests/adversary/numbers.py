"""Numbers, alone and with units."""

from __future__ import annotations

from fractions import Fraction

from tests.adversary.case import Case, Random

UNITS: dict[str, dict[str, tuple[Fraction, tuple[str, ...]]]] = {
    "length": {
        "mm": (Fraction(1, 1000), ("millimetres", "millimeters")), "cm": (Fraction(1, 100), ("centimetres", "centimeters")),
        "m": (Fraction(1), ("metres", "meters")), "km": (Fraction(1000), ("kilometres", "kilometers")),
        "µm": (Fraction(1, 10**6), ("micrometres",)),
    },
    "mass": {
        "mg": (Fraction(1, 10**6), ("milligrams",)), "g": (Fraction(1, 1000), ("grams",)), "kg": (Fraction(1), ("kilograms",)),
    },
    "time": {
        "ms": (Fraction(1, 1000), ("milliseconds",)), "s": (Fraction(1), ("seconds",)), "min": (Fraction(60), ("minutes",)),
        "h": (Fraction(3600), ("hours", "hrs")),
    },
    "power": {
        "mW": (Fraction(1, 1000), ("milliwatts",)), "W": (Fraction(1), ("watts",)), "kW": (Fraction(1000), ("kilowatts",)),
        "MW": (Fraction(10**6), ("megawatts",)),
    },
    "frequency": {
        "mHz": (Fraction(1, 1000), ("millihertz",)), "Hz": (Fraction(1), ("hertz",)), "kHz": (Fraction(1000), ("kilohertz",)),
        "MHz": (Fraction(10**6), ("megahertz",)),
    },
    "volume": {"ml": (Fraction(1, 1000), ("millilitres",)), "L": (Fraction(1), ("litres", "liters"))},
    "speed": {"m/s": (Fraction(1), ("metres per second",)), "km/h": (Fraction(5, 18), ("km per hour", "kph"))},
}  # fmt: skip
_TO_19 = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
_SMALL = _TO_19.split()
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """0 to 999 in English."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + ("-" + _SMALL[number % 10] if number % 10 else "")
    return _SMALL[number // 100] + " hundred" + (" and " + in_words(number % 100) if number % 100 else "")


def other_digits(rng: Random, text: str) -> list[str]:
    """The number with one digit changed, one more, one less, two swapped: those of another value."""
    places = [place for place, char in enumerate(text) if char.isdigit()]
    found = []
    place = rng.choice(places)
    found.append(text[:place] + rng.choice([digit for digit in "0123456789" if digit != text[place]]) + text[place + 1 :])
    found.append(text[:place] + rng.choice("123456789") + text[place:])
    found.append(text[:place] + text[place + 1 :])
    if len(places) > 1:
        one, two = sorted(rng.sample(places, 2))
        found.append(text[:one] + text[two] + text[one + 1 : two] + text[one] + text[two + 1 :])
    return [other for other in found if value(other) not in (None, value(text))]


def value(text: str) -> Fraction | None:
    """What a plain number is worth."""
    try:
        return Fraction(text.replace(",", "")) if text.strip("-+.,") else None
    except (ValueError, ZeroDivisionError):
        return None


def integer(rng: Random) -> Case:
    number = rng.choice(
        [rng.randrange(20), rng.randrange(100, 10**4), rng.randrange(10**6, 10**9), rng.randrange(10**14, 10**19)]
    )
    text = str(number)
    right = [
        f"{number:,}",
        f"{number}.0",
        f"{number}.00",
        f"+{number}",
        text.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
    ]
    right += [f"{number:,}".replace(",", " "), f"{number:,}".replace(",", "{,}"), f"{number:,}".replace(",", r"\,")]
    right += [in_words(number), in_words(number).capitalize()] if number < 1000 else []
    wrong = [
        *other_digits(rng, text),
        "-" + text,
        text + "%",
        f"{number} or {number + 1}",
        f"{number + 1}, {number}",
        text + "th",
    ]
    wrong += [
        f"${number}$ ${number + 1}$",
        f"{number} {number + 2}",
        f"{number}-{number + 5}",
        f"{number + 1}/{number + 2}",
        text + "!!",
    ]
    wrong += [f"not {number}", f"{number + 2}²", f"{number}'", in_words(number + 1) if number < 999 else f"{number} million"]
    return Case(text, tuple(right), tuple(other for other in wrong if number or value(other) != 0))


def decimal(rng: Random) -> Case:
    digits = rng.randrange(1, 6)
    text = f"{rng.choice(['', '-'])}{rng.randrange(1000)}.{rng.randrange(1, 10**digits):0{digits}d}"
    right = [text + "0", text + "000", text.replace("-", "−")] if "-" in text else [text + "0", text + "000", "+" + text]
    if text.lstrip("-").startswith("0."):
        right.append(text.replace("0.", ".", 1))
    numerator, denominator = value(text).as_integer_ratio()  # type: ignore[union-attr]
    right += [rf"\frac{{{numerator}}}{{{denominator}}}", f"{numerator}/{denominator}"]
    wrong = [
        *other_digits(rng, text),
        text[1:] if text[0] == "-" else "-" + text,
        text + "%",
        text + "e3",
        text.replace(".", ""),
    ]
    wrong += [f"{text} or {text}1", f"{text}, 7{text.lstrip('-')}", rf"\frac{{{denominator}}}{{{numerator}}}"]
    return Case(
        text,
        tuple(right),
        tuple(other for other in wrong if value(other) != value(text) and numerator not in (denominator, -denominator)),
    )


def scientific(rng: Random) -> Case:
    mantissa, exponent = f"{rng.randrange(1, 10)}.{rng.randrange(1, 99):02d}", rng.choice([-34, -19, -12, -7, 5, 8, 23])
    right = [
        f"{mantissa}E{exponent}",
        f"{mantissa} × 10^{exponent}",
        rf"{mantissa} \times 10^{{{exponent}}}",
        f"{mantissa}*10^{exponent}",
    ]
    right += [f"{mantissa}×10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))]
    wrong = [
        f"{mantissa}e{exponent + rng.choice([-3, -1, 1, 3])}",
        f"{mantissa}e{-exponent}",
        f"-{mantissa}e{exponent}",
        mantissa,
        "0",
    ]
    wrong += [f"{other}e{exponent}" for other in other_digits(rng, mantissa)]
    wrong += [f"{mantissa} × 10{exponent}", rf"{mantissa} \times 10^{{{exponent + 1}}}"]
    return Case(f"{mantissa}e{exponent}", tuple(right), tuple(wrong))


def quantity(rng: Random) -> Case:
    kind = rng.choice(list(UNITS))
    unit = rng.choice(list(UNITS[kind]))
    factor, names = UNITS[kind][unit]
    number = rng.choice([rng.randrange(2, 2000), rng.randrange(1, 200) / 10])
    text = f"{number} {unit}"
    right = [
        f"{number}{unit}",
        f"{number} {rng.choice(names)}",
        rf"{number}\text{{ {unit}}}",
        rf"{number}\ \mathrm{{{unit}}}",
    ]
    wrong = [f"-{text}", *(f"{other} {unit}" for other in other_digits(rng, str(number))), f"{text} or {number + 1} {unit}"]
    for other, (size, other_names) in UNITS[kind].items():
        if other == unit:
            continue
        wrong += [f"{number} {other}", f"{number} {rng.choice(other_names)}"]
        converted = Fraction(str(number)) * factor / size
        if converted.denominator in (1, 2, 4, 5, 10, 100, 1000):
            right.append(f"{float(converted):.10g} {other}" if converted < 10**9 else text)
    other_kind = rng.choice([name for name in UNITS if name != kind])
    wrong += [f"{number} {other}" for other in UNITS[other_kind]]
    return Case(text, tuple(right), tuple(wrong))


def data_size(rng: Random) -> Case:
    number, prefix = rng.randrange(2, 900), rng.choice("kMG")
    per = rng.choice(["", "/s"])
    bits, size = f"{number} {prefix}b{per}", f"{number} {prefix}B{per}"
    text, other = rng.choice([(bits, size), (size, bits)])
    return Case(
        text, (text.replace(" ", ""),), (other, text.replace(prefix, "T"), f"{number + 1}{text[len(str(number)) :]}")
    )


def percentage(rng: Random) -> Case:
    number = rng.choice([rng.randrange(1, 100), rng.randrange(1, 1000) / 10])
    right = [f"{number} %", rf"{number}\%", f"{number} percent", f"{number} per cent", f"{number}％"]
    wrong = [f"-{number}%", f"{number} kg", f"{number} percentage points", f"{number}‰", f"{number}% or {number + 1}%"]
    wrong += [f"{other}%" for other in other_digits(rng, str(number))] + [
        f"{Fraction(str(number)) * 10}%" if number else "1%"
    ]
    return Case(f"{number}%", tuple(right), tuple(wrong))


def money(rng: Random) -> Case:
    number = rng.randrange(2, 5000)
    right = [f"${number}.00", f"{number} dollars", rf"\${number}", f"${number:,}", f"{number} USD", f"US${number}"]
    wrong = [
        f"€{number}",
        f"£{number}",
        f"{number} EUR",
        f"-${number}",
        f"${number} million",
        f"{number} cents",
        f"{number} euros",
    ]
    wrong += [f"${other}" for other in other_digits(rng, str(number))] + [f"${number} or ${number + 1}"]
    return Case(f"${number}", tuple(right), tuple(wrong))


KINDS = (integer, decimal, scientific, quantity, data_size, percentage, money)
