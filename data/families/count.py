"""How many squares of a colour: few large ones, which are seen, or many tiny ones, which code counts exactly.

The label's rule: code is needed if there are more squares than are seen without counting (4), or if a square is smaller
on the shrunken board than a patch of the model (14 px), so that none of them is seen by itself.
"""

from __future__ import annotations

import random

from PIL import Image

from data.families import DIRECT, Call, Family, Question
from data.families.mark import BOARD_PX, COLOURS, SEEN_PX

SEEN_AT_ONCE = 4
PATCH_PX = 14
_LARGE_PX = 168
_TINY_PX = 8
_NAMES = ("red", "green", "blue", "yellow")
_MANY = {1: (10, 30), 2: (40, 120), 3: (200, 600)}
"""(fewest, most) tiny squares of each colour, by level."""
_OTHERS = 12


def needs_code(count: int, side_px: int) -> bool:
    """The label's rule.

    Args:
        count: Squares of the colour that is asked about.
        side_px: Of one of them, on the board.
    """
    return count > SEEN_AT_ONCE or side_px * SEEN_PX / BOARD_PX < PATCH_PX


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    fewest, most, side_px = (*_MANY[level], _TINY_PX) if rng.random() < 0.5 else (1, SEEN_AT_ONCE, _LARGE_PX)
    asked, other = rng.sample(_NAMES, 2)
    counts = {asked: rng.randint(fewest, most), other: rng.randint(fewest, most)}
    answer = str(counts[asked])
    near = range(max(fewest, counts[asked] - _OTHERS), min(most, counts[asked] + _OTHERS) + 1)
    code = (
        f"pixels = {{colour: count for count, colour in image_1.getcolors()}}\n"
        f"print(pixels[{COLOURS[asked]}] // {side_px * side_px})"
    )
    return Question(
        image=_board(rng, counts, side_px),
        text=f"How many {asked} squares are there?",
        answer=answer,
        kind="code" if needs_code(counts[asked], side_px) else DIRECT,
        calls=[Call(thought="I count them by code.", arguments={"code": code})],
        others=[str(number) for number in near],
    )


def _board(rng: random.Random, counts: dict[str, int], side_px: int) -> Image.Image:
    board = Image.new("RGB", (BOARD_PX, BOARD_PX), (228, 228, 228))
    pitch_px = 2 * side_px if side_px == _TINY_PX else BOARD_PX // 4
    per_row = BOARD_PX // pitch_px
    places = iter(rng.sample(range(per_row * per_row), sum(counts.values())))
    for name, count in counts.items():
        for _ in range(count):
            x, y = (pitch_px * part + (pitch_px - side_px) // 2 for part in divmod(next(places), per_row))
            board.paste(COLOURS[name], (x, y, x + side_px, y + side_px))
    return board


FAMILY = Family(name="count", title="Squares of a colour (synthetic)", draw=draw)
