"""A fact about an invented town: taught by heart in the cold start, or only to be found in the local index.

The label's rule: a town is known if the cold start answers questions about it without a search, and it is one of the first
quarter of the towns of the level. The others are split: no split asks about a town of another. Of the known ones every
split asks in words in which no other split asks about that town.
"""

from __future__ import annotations

import functools
import random

from agent.search import WebResult
from data.families import DIRECT, SPLITS, Call, Family, Question
from data.families._invented import invented_names, shares_of

_TOWNS = {1: 64, 2: 256, 3: 1024}
"""Of each level."""
_KNOWN_FRAC = 0.25
EMBLEMS = (
    "heron", "anchor", "oak", "bell", "fox", "tower", "wheel", "salmon", "crown", "plough",
    "lantern", "hare",
)  # fmt: skip
_QUESTIONS = (
    "What is the emblem of {}?", "Which emblem does {} have?", "What does the town of {} show as its emblem?",
    "Name the emblem of {}.", "{}: what is its emblem?", "The emblem of {} is what?",
)  # fmt: skip


@functools.cache
def towns(level: int) -> dict[str, str]:
    """Town -> emblem, the known ones first."""
    names = invented_names(_TOWNS[level], world="towns")
    rng = random.Random("emblems")
    return {name: rng.choice(EMBLEMS) for name in names}


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    facts = list(towns(level).items())
    known = int(len(facts) * _KNOWN_FRAC)
    is_known = rng.random() < 0.5
    number = rng.randrange(known) if is_known else rng.choice(list(shares_of(len(facts), split, known=known)))
    town, emblem = facts[number]
    # Two ways of asking for each split; which two changes from town to town, so that every split knows all words.
    first = 2 * SPLITS.index(split) + number
    words = _QUESTIONS[(first + rng.randrange(2)) % len(_QUESTIONS)]
    return Question(
        image=None,
        text=words.format(town),
        answer=emblem,
        kind=DIRECT if is_known else "search",
        calls=[Call(thought=f"I do not know {town}.", name="search", arguments={"query": f"{town} emblem"})],
        others=EMBLEMS,
    )


def pages(level: int) -> list[WebResult]:
    """One page a town."""
    return [
        WebResult(
            title=town, link=f"town:{town.lower()}", snippet=f"{town} is a town. The emblem of {town} is the {emblem}."
        )
        for town, emblem in towns(level).items()
    ]


FAMILY = Family(
    name="lookup", title="Emblem of an invented town (synthetic)", draw=draw, tools=("search",), pages=pages
)
