"""Names that nobody has, so that no model knows anything about them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

_BEGINNINGS = (
    "bal", "cor", "dra", "el", "fen", "gar", "hol", "il", "jor", "kel", "lun", "mor", "nor", "or",
    "pel", "quin", "ral", "sel", "tor", "ul", "vel", "wes", "yor", "zan",
)  # fmt: skip
_MIDDLES = (
    "a", "e", "i", "o", "u", "am", "en", "il", "or", "ul",
)  # fmt: skip
_ENDS = (
    "bria", "dell", "fax", "gast", "hem", "kor", "lun", "mar", "nia", "poth", "ras", "sten", "tova",
    "vale", "wick", "zor",
)  # fmt: skip
MOST_NAMES = len(_BEGINNINGS) * len(_MIDDLES) * len(_ENDS)


@functools.cache
def invented_names(count: int, *, world: str) -> list[str]:
    """Different names of three syllables, always the same ones of a world.

    Args:
        count: At most `MOST_NAMES`.
        world: Whose names they are.
    """
    numbers = random.Random(f"names of {world}").sample(range(MOST_NAMES), count)
    return [_name(number) for number in numbers]


def _name(number: int) -> str:
    number, end = divmod(number, len(_ENDS))
    beginning, middle = divmod(number, len(_MIDDLES))
    return f"{_BEGINNINGS[beginning]}{_MIDDLES[middle]}{_ENDS[end]}".capitalize()


def shares_of(count: int, split: str, *, known: int) -> Iterator[int]:
    """Numbers of the things that a split may ask about and that the cold start does not teach by heart.

    Args:
        count: Of all things; the first `known` are taught by heart, and every split asks about those.
        split: Of `data.families.SPLITS`; no two splits share one of the others.
        known: How many are taught by heart.
    """
    part = {"sft": (0, 1, 2), "rl_train": (3, 4, 5), "benchmark": (6, 7)}[split]
    return (number for number in range(known, count) if number % 8 in part)
