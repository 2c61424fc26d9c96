"""A station's code is a mark's colour and two words as one, and its keeper can only be looked up: a crop and a search.

The keeper is never known: a search is always needed. Whether a crop is needed too goes by the rule of the family `mark`,
whose board it is. A code such as `red_tulip_otter` is one word to the local index, so the right code finds its page and no
other. Stations are split: no split asks about one of another's. Colours, words and keepers are in every split, so that what
is held out is which keeper a station has, and not a word; and there are too many stations to learn them by heart.
"""

from __future__ import annotations

import functools
import random

from agent.search import WebResult
from data.families import Call, Family, Question
from data.families._invented import invented_names, shares_of
from data.families.mark import COLOURS, colours_of, draw_mark, told_place

_PLANTS = (
    "aspen", "basil", "cedar", "daisy", "elder", "fern", "ginger", "hazel", "iris", "jasmine", "kale", "lilac", "maple",
    "nettle", "olive", "poppy", "quince", "rowan", "sage", "tulip", "violet", "willow", "yarrow", "zinnia",
)  # fmt: skip
_ANIMALS = (
    "ant", "badger", "camel", "dove", "eagle", "fox", "goose", "heron", "ibis", "jackal", "koala", "lynx", "mole", "newt",
    "otter", "panda", "quail", "raven", "seal", "toad", "urchin", "viper", "wolf", "yak",
)  # fmt: skip
_ENDINGS = tuple(f"_{plant}_{animal}" for plant in _PLANTS for animal in _ANIMALS)
"""What stands behind the colour in a code."""
KEEPERS = tuple(invented_names(12, world="keepers"))


@functools.cache
def stations(level: int) -> dict[tuple[str, str], str]:
    """(colour, ending) -> keeper."""
    rng = random.Random("keepers")
    return {(colour, ending): rng.choice(KEEPERS) for ending in _ENDINGS for colour in colours_of(level)}


@functools.cache
def _endings(level: int, split: str, colour: str) -> list[str]:
    """Endings of the stations of a colour that a split may ask about."""
    keys = list(stations(level))
    random.Random("split").shuffle(keys)
    return [keys[place][1] for place in shares_of(len(keys), split, known=0) if keys[place][0] == colour]


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    mark, colour = draw_mark(rng, level)
    ending = rng.choice(_endings(level, split, colour))
    code = f"{colour}{ending}"
    crop = Call(
        thought="I need a closer look at the mark.", arguments={"code": f"display({mark.closer_look()})"}
    )
    search = Call(thought=f"The code is {code}.", name="search", arguments={"query": code})
    return Question(
        image=mark.board(COLOURS[colour]),
        text=f"A station's code is COLOUR{ending}, with the colour of the mark{told_place(mark, level)}. Who keeps it?",
        answer=stations(level)[colour, ending],
        kind="both" if mark.is_small else "search",
        calls=[crop, search] if mark.is_small else [search],
        others=KEEPERS,
    )


def pages(level: int) -> list[WebResult]:
    """One page a station."""
    return [
        WebResult(
            title=f"{keeper}, keeper of {colour}{ending}",
            link=f"station:{colour}{ending}",
            snippet=f"The keeper of {colour}{ending} is {keeper}.",
        )
        for (colour, ending), keeper in stations(level).items()
    ]


FAMILY = Family(
    name="chain",
    title="Keeper of a station whose code is on a board (synthetic)",
    draw=draw,
    version=3,
    tools=("python", "search"),
    num_replies=3,
    pages=pages,
)
