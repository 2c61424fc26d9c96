"""A station's code is a mark's colour and a number as one word, and its keeper can only be looked up: a crop and a search.

The keeper is never known: a search is always needed. Whether a crop is needed too goes by the rule of the family `mark`,
whose board it is. A code such as `red47` is one word to the local index, so the right code finds its page and no other.
Stations are split: no split asks about one of another's. Colours, numbers and keepers are in every split, so that what is
held out is which keeper a station has, and not a word.
"""

from __future__ import annotations

import functools
import random

from agent.search import WebResult
from data.families import Call, Family, Question
from data.families._invented import invented_names, shares_of
from data.families.mark import COLOURS, colours_of, draw_mark, told_place

_NUMBERS = {1: range(10, 100), 2: range(10, 100), 3: range(100, 1000)}
"""Of the stations of each colour, by level."""
KEEPERS = tuple(invented_names(12, world="keepers"))


@functools.cache
def stations(level: int) -> dict[tuple[str, int], str]:
    """(colour, number) -> keeper."""
    keys = [(colour, number) for number in _NUMBERS[level] for colour in colours_of(level)]
    rng = random.Random("keepers")
    return {key: rng.choice(KEEPERS) for key in keys}


@functools.cache
def _numbers(level: int, split: str, colour: str) -> list[int]:
    """Numbers of the stations of a colour that a split may ask about."""
    keys = list(stations(level))
    return [keys[place][1] for place in shares_of(len(keys), split, known=0) if keys[place][0] == colour]


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    mark, colour = draw_mark(rng, level)
    number = rng.choice(_numbers(level, split, colour))
    code = f"{colour}{number}"
    crop = Call(
        thought="I need a closer look at the mark.", arguments={"code": f"display({mark.closer_look()})"}
    )
    search = Call(thought=f"The code is {code}.", name="search", arguments={"query": code})
    return Question(
        image=mark.board(COLOURS[colour]),
        text=f"A station's code is the colour of the mark{told_place(mark, level)} and {number} as one word. Who keeps it?",
        answer=stations(level)[colour, number],
        kind="both" if mark.is_small else "search",
        calls=[crop, search] if mark.is_small else [search],
        others=KEEPERS,
    )


def pages(level: int) -> list[WebResult]:
    """One page a station."""
    return [
        WebResult(
            title=f"Station {colour}{number}",
            link=f"station:{colour}{number}",
            snippet=f"The keeper of {colour}{number} is {keeper}.",
        )
        for (colour, number), keeper in stations(level).items()
    ]


FAMILY = Family(
    name="chain",
    title="Keeper of a station whose code is on a board (synthetic)",
    draw=draw,
    version=2,
    tools=("python", "search"),
    num_replies=3,
    pages=pages,
)
