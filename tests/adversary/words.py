"""Choices, words, dates, lists and codes."""

from __future__ import annotations

from tests.adversary.case import Case, Random

WORDS = [
    "table",
    "garden",
    "bridge",
    "window",
    "station",
    "harbour",
    "castle",
    "lantern",
    "kitchen",
    "mountain",
    "ladder",
    "blanket",
]
NAMES = ["Paris", "London", "Berlin", "Madrid", "Vienna", "Oslo", "Lisbon", "Dublin", "Prague", "Warsaw", "Cairo", "Delhi"]
LABELLED = ["Vitamin", "Hepatitis", "Group", "Point", "Gate", "Terminal", "Row", "Exit", "Section", "Plan", "Type", "Team"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
]  # fmt: skip


def date(rng: Random) -> Case:
    year, month, day = rng.randrange(1900, 2030), rng.randrange(1, 13), rng.randrange(1, 28)
    name = MONTHS[month - 1]
    right = [
        f"{name} {day}, {year}",
        f"{day} {name} {year}",
        f"{name[:3]} {day}, {year}",
        f"{year}/{month:02d}/{day:02d}",
        f"{year}年{month}月{day}日",
    ]
    right += [
        f"{day:02d}/{month:02d}/{year}",
        f"{month}/{day}/{year}",
        f"{day}.{month}.{year}",
        f"the {day} of {name} {year}",
    ]
    other = MONTHS[month % 12]
    wrong = [
        f"{other} {day}, {year}",
        f"{name} {day + 1}, {year}",
        f"{day} {name} {year + 1}",
        f"{name} {year}",
        str(year),
        f"{name} {day}",
    ]
    wrong += [f"{year}-{month:02d}-{day + 1:02d}", f"{day + 1}/{day + 1}/{year}", f"not {name} {day}, {year}"]
    wrong += [f"{name} {day}, {year} or {name} {day + 1}, {year}"]
    return Case(f"{year}-{month:02d}-{day:02d}", tuple(right), tuple(wrong))


def clock(rng: Random) -> Case:
    hour, minute = rng.randrange(1, 12), rng.randrange(1, 59)
    half = rng.choice(["AM", "PM"])
    other = "PM" if half == "AM" else "AM"
    day = hour + 12 * (half == "PM")
    right = [
        f"{hour}:{minute:02d} {half.lower()}",
        f"{hour}:{minute:02d}{half}",
        f"{day:02d}:{minute:02d}",
        f"{hour}:{minute:02d}",
        f"0{hour}:{minute:02d} {half}"[-8:],
    ]
    wrong = [
        f"{hour}:{minute:02d} {other}",
        f"{hour}:{minute + 1:02d} {half}",
        f"{hour + 1}:{minute:02d} {half}",
        f"{hour} {half}",
        f"{hour}/{minute}",
    ]
    return Case(f"{hour}:{minute:02d} {half}", tuple(right), tuple(wrong))


def span(rng: Random) -> Case:
    low = rng.randrange(1, 2000)
    high = low + rng.randrange(2, 90)
    shift = rng.randrange(1, 50)
    right = [f"{low}–{high}", f"{low} - {high}", f"{low} to {high}", f"from {low} to {high}", f"between {low} and {high}"]
    wrong = [
        f"{low + shift}-{high + shift}",
        f"{low}-{high + 1}",
        f"{low - 1}-{high}",
        str(low - high),
        str(high - low),
        str(low),
        f"{low}/{high}",
    ]
    if rng.random() < 0.3:
        return Case(f"{low}-{high} MW", (f"{low} - {high} MW",), (f"{low}-{high} mW", f"{low}-{high} kW", f"{low}-{high}"))
    return Case(f"{low}-{high}", tuple(right), tuple(wrong))


def ratio(rng: Random) -> Case:
    one, two = rng.sample(range(2, 10), 2)
    return Case(
        f"{one}:{two}",
        (f"{one} : {two}", f"{one}/{two}", f"{2 * one}:{2 * two}"),
        (f"{one}:{two + 1}", f"{two}:{one}", f"{one}:{two}:1", f"{one * 10 + two}"),
    )


def choice(rng: Random) -> Case:
    letter = rng.choice("ABCDE")
    others = [other for other in "ABCDE" if other != letter]
    other, third = rng.sample(others, 2)
    word = rng.choice(WORDS)
    right = [
        f"({letter})",
        f"{letter}.",
        f"{letter})",
        f"[{letter}]",
        f"**{letter}**",
        f"Option {letter}",
        f"The answer is {letter}.",
        f"Answer: ({letter})",
    ]
    right += [
        f"{letter}. {word}",
        f"({letter}) {word}",
        f"{letter}: A {word}",
        rf"\boxed{{{letter}}}",
        rf"$\boxed{{\text{{{letter}}}}}$",
        f"**{letter}.** {word}",
    ]
    wrong = [
        other,
        f"({other})",
        f"{other}. {word}",
        f"{letter}, {other}",
        f"{other}, {letter}",
        f"{letter} {other}",
        f"{other} {letter}",
        f"{letter} or {other}",
    ]
    wrong += [
        f"{letter} and {other}",
        f"not {letter}",
        f"{letter} is wrong",
        f"{letter}. No, {other}.",
        f"{letter}. Not {word}",
        f"{letter}. {word} or {other}. tree",
    ]
    wrong += [
        f"{letter}. and {other}. are both right",
        f"{letter}/{other}",
        f"{letter}, {other}, {third}",
        f"{letter}. wait, {other}",
        letter + "'",
        letter + "1",
        letter + other,
    ]
    wrong += [
        f"The answer is {other}",
        f"The answer is not {letter}",
        "A. B. C. D. E.",
        "A, B, C, D, E",
        f"anything but {letter}",
        f"{letter}.0",
        f"({letter})th",
        f"({letter})'",
        f"<{letter}",
        f"{letter}. falsch",
        f"{letter}?? {other}",
    ]
    return Case(letter, tuple(right), tuple(wrong))


def yes_no(rng: Random) -> Case:
    gold, other = rng.choice([("yes", "no"), ("no", "yes"), ("Yes", "No"), ("No", "Yes")])
    wrong = [
        other,
        f"{other}.",
        f"not {gold}",
        f"{gold} and {other}",
        f"{gold} or {other}",
        f"{gold}/{other}",
        f"{other}, {gold}",
        "unknown",
        f"{gold}thing",
    ]
    return Case(gold, (gold.upper(), f"{gold}.", f"{gold}!", gold.title()), tuple(wrong), question="Is it so?")


def colour(rng: Random) -> Case:
    gold, other = rng.sample(COLOURS, 2)
    right = [gold.upper(), gold.title(), gold + ".", f'"{gold}"', f"**{gold}**", f"The answer is {gold}."]
    wrong = [
        other,
        f"{gold} or {other}",
        f"{other} or {gold}",
        f"not {gold}",
        f"{gold}/{other}",
        f"dark {other}",
        f"{gold} and {other}",
        f"{gold}, {other}",
        f"un{gold}",
    ]
    return Case(gold, tuple(right), tuple(wrong))


def phrase(rng: Random) -> Case:
    words = rng.sample(WORDS, rng.randrange(1, 4))
    gold = " ".join(words)
    other = rng.choice([word for word in WORDS if word not in words])
    right = [
        gold.upper(),
        gold.title(),
        f"The {gold}.",
        f"a {gold}" if gold[0] not in "aeiou" else f"an {gold}",
        f"“{gold}”",
        f"{gold}!",
    ]
    place = rng.randrange(len(gold))
    wrong = [
        f"not {gold}",
        f"{gold} {other}",
        f"{other} {gold}",
        other,
        gold[:place] + gold[place + 1 :],
        f"{gold} or {other}",
        f"{gold}s {other}",
        f"no {gold}",
    ]
    letter = rng.choice("bcdfghjklmnpqrtvwxz")
    wrong.append(gold[:place] + letter + gold[place:])
    wrong += [" ".join(words[:-1])] if len(words) > 1 else []
    return Case(gold, tuple(right), tuple(other for other in wrong if other and other != gold))


def label(rng: Random) -> Case:
    word, letter, other = rng.choice(LABELLED), *rng.sample("ABCDEK", 2)
    wrong = [
        word,
        word.lower(),
        f"The {word}",
        f"{word} {other}",
        f"{word} {letter}{other}",
        f"{word} {letter.lower()}",
        f"{word} {letter} and {other}",
        f"{word} 1",
        letter if letter != "A" else other,
    ]
    return Case(
        f"{word} {letter}",
        (f"{word.lower()} {letter}", f"{word.upper()} {letter}", f"{word} {letter}.", f"the {word} {letter}"),
        tuple(wrong),
    )


def symbol(rng: Random) -> Case:
    gold, others = rng.choice(
        [
            ("Co", ("CO", "co", "C", "Co2")), ("CO2", ("Co2", "CO", "CO3", "C02")), ("5 MW", ("5 mW", "5 MWh", "5 kW")), ("f'", ("f", "f''", "F'")),
            ("x²", ("x2", "x³", "x", "X²")), ("4!", ("4", "4!!", "3!", "5!")), ("2R", ("2r", "R2", "2")), (r"\Delta", (r"\delta", "D", r"\Delta'")),
            ("B'", ("B", "b'", "B''")), ("x_1", ("x^1", "x_2", "x1", "x")), ("Fe3+", ("Fe2+", "Fe", "FE3+")), ("5'", ('5"', "5", "6'")), ("V=IR", ("V=Ir", "V=IR²", "V=R")),
            ("x^2", ("x2", "2x", "x^3", "x")), ("10^9", ("109", "10^8", "9^10")), (r"\log 2", (r"\ln 2", "2")), ("-x", ("x", "--x")), ("A-A", ("-", "A", "B-B")),
        ]
    )  # fmt: skip
    return Case(gold, (f"${gold}$" if "'" not in gold else gold, f"**{gold}**" if "'" not in gold else gold), others)


def code(rng: Random) -> Case:
    letters, number = "".join(rng.sample("ABCEGHKMPRTX", rng.randrange(1, 3))), rng.randrange(1, 400)
    gold = f"{letters}{number}"
    wrong = [
        f"{letters}{number + 1}",
        f"{letters}{number}{rng.randrange(10)}",
        str(number),
        letters,
        f"{letters[::-1]}X{number}",
        f"{letters}{number} or {letters}{number + 1}",
    ]
    return Case(gold, (gold + ".", f"**{gold}**", f"The answer is {gold}"), tuple(wrong))


def listing(rng: Random) -> Case:
    items = (
        rng.sample(NAMES, rng.randrange(2, 5))
        if rng.random() < 0.5
        else [str(number) for number in rng.sample(range(2, 99), rng.randrange(3, 6))]
    )
    gold = ", ".join(items)
    other = rng.choice([name for name in NAMES if name not in items]) if items[0].isalpha() else "999"
    right = [", ".join(items[:-1]) + " and " + items[-1], "; ".join(items), ", ".join(items[:-1]) + f", and {items[-1]}"]
    wrong = [
        ", ".join(items[:-1]),
        ", ".join([*items, other]),
        ", ".join([*items[:-1], other]),
        ", ".join([other, *items[1:]]),
        items[0],
        "".join(items),
    ]
    return Case(gold, tuple(right), tuple(wrong))


def braces(rng: Random) -> Case:
    numbers = rng.sample(range(-20, 60), rng.randrange(2, 5))
    shuffled = rng.sample(numbers, len(numbers))
    gold = "{" + ", ".join(map(str, numbers)) + "}"
    right = ["{" + ", ".join(map(str, shuffled)) + "}", r"\{" + ",".join(map(str, numbers)) + r"\}"]
    wrong = [
        "{" + ", ".join(map(str, numbers[:-1])) + "}",
        "{" + ", ".join(map(str, [*numbers, 77])) + "}",
        "(" + ", ".join(map(str, shuffled)) + ")",
    ]
    wrong += [
        "{" + ", ".join(map(str, [*numbers[:-1], 88])) + "}",
        "[" + ", ".join(map(str, numbers)) + "]",
        str(numbers[0]),
    ]
    return Case(gold, tuple(right), tuple(wrong))


def pair(rng: Random) -> Case:
    one, two = rng.sample(range(-9, 30), 2)
    right = (f"({one},{two})", rf"\left({one}, {two}\right)", f"$({one}, {two})$")
    wrong = (
        f"({two}, {one})",
        f"[{one}, {two}]",
        f"[{one}, {two})",
        f"({one}, {two + 1})",
        rf"\{{{one}, {two}\}}",
        f"({one}, {two}, {two})",
        str(one),
        f"({one}, {two}.5)",
    )
    return Case(f"({one}, {two})", right, wrong)


KINDS = (date, clock, span, ratio, choice, yes_no, colour, phrase, label, symbol, code, listing, braces, pair)
