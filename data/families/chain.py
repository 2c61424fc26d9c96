"""A code of two colours on a board, and the keeper of the station that has it: a crop and a search in one episode.

The keeper is never known: a search is always needed. Whether a crop is needed too goes by the rule of the family `mark`: the
code is two marks side by side, both large or both small. Codes are split: no split asks about one of another's stations,
and each code has several stations, told apart by their number in the question.
"""

from __future__ import annotations

import functools
import random

from agent.search import WebResult
from data.families import Call, Family, Question
from data.families._invented import invented_names, shares_of
from data.families.mark import BOARD_PX, COLOURS, Mark

_SIZE_PX = 128
_APART_PX = 160
"""Between the middles of the two marks."""
_NAMES = {1: ("red", "green", "blue", "yellow"), 2: tuple(COLOURS)[:5], 3: tuple(COLOURS)}
_LINES = 24
"""Stations of each code, one on each line."""


@functools.cache
def stations(level: int) -> dict[tuple[int, str, str], str]:
    """(line, left colour, right colour) -> keeper."""
    names = _NAMES[level]
    keys = [(line, left, right) for line in range(1, _LINES + 1) for left in names for right in names]
    return dict(zip(keys, invented_names(len(keys), world="keepers"), strict=True))


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    known = stations(level)
    line = 1 + rng.choice(list(shares_of(_LINES, split, known=0)))
    left, right = rng.choice(_NAMES[level]), rng.choice(_NAMES[level])
    is_small = rng.random() < 0.5
    y = rng.randrange(112, BOARD_PX - 111, 56)
    x = rng.randrange(112, BOARD_PX - 111 - _APART_PX, 56)
    marks = [Mark(x + by, y, _SIZE_PX, is_small, rng.getrandbits(48)) for by in (0, _APART_PX)]
    look = "\n".join(f"display({mark.closer_look()})" for mark in marks)
    image, beside = (mark.board(COLOURS[name]) for mark, name in zip(marks, (left, right), strict=True))
    box = (x + _APART_PX // 2, 0, BOARD_PX, BOARD_PX)
    image.paste(beside.crop(box), box)
    search = Call(
        thought=f"The code is {left} {right}.", name="search", arguments={"query": f"station {left} {right} line {line}"}
    )
    crop = Call(thought="I need a closer look at the code.", arguments={"code": look})
    return Question(
        image=image,
        text=f"Who keeps the station on line {line} that has this code?",
        answer=known[line, left, right],
        kind="both" if is_small else "search",
        calls=[crop, search] if is_small else [search],
        others=[known[line, one, two] for one in _NAMES[level] for two in _NAMES[level]],
    )


def pages(level: int) -> list[WebResult]:
    """One page a station."""
    return [
        WebResult(
            title=f"Station {left} {right} line {line}",
            link=f"station:{line}-{left}-{right}",
            snippet=f"The keeper of the station {left} {right} on line {line} is {keeper}.",
        )
        for (line, left, right), keeper in stations(level).items()
    ]


FAMILY = Family(
    name="chain",
    title="Keeper of a station whose code is on a board (synthetic)",
    draw=draw,
    tools=("python", "search"),
    num_replies=3,
    pages=pages,
)
