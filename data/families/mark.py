"""One coloured mark on a board, legible at once or only in a crop; the question does not tell which.

A large mark is a plain square. A small one is 40 px wide, in the middle of a grey plate: its colour stands in dots so
fine that the board at the model's size shows their mean, which is the plate's grey for every colour; in a crop of one dot it
is plain to see. All of it lies under noise of blocks as large as a pixel of the shrunken board.

The label's rule, `separation`: boards that differ in nothing but the colour are shrunk as they are for the model; the
distance between the two, in standard deviations of the noise, says how well the best of all observers could tell them
apart. Above `LEGIBLE` the mark can be read at once; below `ILLEGIBLE` that observer is right in at most 7 of 10 cases of
two colours. In between there is nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageChops

from data.families import DIRECT, Call, Family, Question

BOARD_PX = 896
SEEN_PX = 112
"""A side of the board as the tiny model sees it: at 12,544 pixels."""
LEGIBLE = 10.0
ILLEGIBLE = 1.0
_BLOCK_PX = BOARD_PX // SEEN_PX
DOT_PX = 4
"""Of one dot; the crop shows the one in the middle, brought up to `SHOWN_PX`."""
SHOWN_PX = 56
_DOTS = 5
SMALL_PX = _DOTS * _BLOCK_PX
_PLATE_PX = 96
_BACKGROUND = (228, 228, 228)
_MEAN = (176, 176, 176)
"""Of every small mark: a quarter of it has the colour, the rest makes up for it."""
_FADING = (0.4, 0.8, 1.0, 0.8, 0.4)
"""Strength of the dots from one edge to the other: a sudden end would show in the shrunken board."""
_NOISE = 24
"""Levels up and down."""
_NOISE_DEVIATION = math.sqrt(_NOISE * (_NOISE + 1) / 3)
COLOURS = {
    "red": (220, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 220), "yellow": (228, 208, 30), "pink": (228, 110, 170),
    "orange": (228, 130, 30),
}  # fmt: skip
_SMALL_FRAC = 0.5


@dataclass(frozen=True, slots=True)
class _Level:
    num_colours: int
    size_px: int
    step_px: int
    """Marks lie at multiples of it."""
    place_is_told: bool
    """Whether the question says where the mark is."""


_LEVELS = {1: _Level(3, 208, 224, True), 2: _Level(5, 128, 112, False), 3: _Level(6, 96, 56, False)}


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark, before it is drawn."""

    x: int
    """Of its middle; a multiple of 8, as is `y`."""
    y: int
    size_px: int
    """Of the plain square."""
    is_small: bool
    noise_seed: int

    def closer_look(self) -> str:
        """Python for the image of the dot in the middle, or of as much of a plain square."""
        left, top = self.x - 6, self.y - 6
        return f"image_1.crop(({left}, {top}, {left + DOT_PX}, {top + DOT_PX})).resize(({SHOWN_PX}, {SHOWN_PX}))"

    def board(self, colour: tuple[int, int, int]) -> Image.Image:
        """The board with the mark in a colour."""
        board = Image.new("RGB", (BOARD_PX, BOARD_PX), _BACKGROUND)
        size_px = _PLATE_PX if self.is_small else self.size_px
        left, top = self.x - size_px // 2, self.y - size_px // 2
        board.paste(_MEAN if self.is_small else colour, (left, top, left + size_px, top + size_px))
        if self.is_small:
            half = SMALL_PX // 2 + _BLOCK_PX // 2
            board.paste(_dotted(colour), (self.x - half, self.y - half))
        self._add_noise(board, left, top, size_px)
        return board

    def _add_noise(self, board: Image.Image, left: int, top: int, size_px: int) -> None:
        """Shift the colour of each block of the mark, and of two blocks around it, which the shrinking mixes with it."""
        margin = 2 * _BLOCK_PX
        box = (left - margin, top - margin, left + size_px + margin, top + size_px + margin)
        blocks = (box[2] - box[0]) // _BLOCK_PX
        shifts = random.Random(self.noise_seed).choices(range(2 * _NOISE + 1), k=3 * blocks**2)
        noise = Image.frombytes("RGB", (blocks, blocks), bytes(shifts))
        noise = noise.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST)
        board.paste(ImageChops.add(board.crop(box), noise, offset=-_NOISE), box)


def _dotted(colour: tuple[int, int, int]) -> Image.Image:
    mark = Image.new("RGB", (SMALL_PX, SMALL_PX))
    margin = (_BLOCK_PX - DOT_PX) // 2
    for row, high in enumerate(_FADING):
        for column, wide in enumerate(_FADING):
            strength, x, y = high * wide, column * _BLOCK_PX, row * _BLOCK_PX
            dot = tuple(round(mean + strength * (level - mean)) for mean, level in zip(_MEAN, colour, strict=True))
            rest = tuple(round((4 * mean - level) / 3) for mean, level in zip(_MEAN, dot, strict=True))
            mark.paste(rest, (x, y, x + _BLOCK_PX, y + _BLOCK_PX))
            mark.paste(dot, (x + margin, y + margin, x + margin + DOT_PX, y + margin + DOT_PX))
    return mark


def shrunk(board: Image.Image) -> list[int]:
    """Levels of the board as the model sees it, by the filter that the model's processor uses: [112 * 112 * 3]."""
    return list(board.resize((SEEN_PX, SEEN_PX), Image.Resampling.BICUBIC).tobytes())


def separation(mark: Mark, colour: str, other: str) -> float:
    """How far the shrunken boards of two colours lie apart, in standard deviations of the noise of one level."""
    seen = [shrunk(mark.board(COLOURS[name])) for name in (colour, other)]
    return math.dist(*seen) / _NOISE_DEVIATION


def draw_mark(rng: random.Random, level: int) -> tuple[Mark, str]:
    """A mark and its colour."""
    limits = _LEVELS[level]
    is_small = rng.random() < _SMALL_FRAC
    places = range(112, BOARD_PX - 111, limits.step_px)
    mark = Mark(rng.choice(places), rng.choice(places), limits.size_px, is_small, rng.getrandbits(48))
    return mark, rng.choice(colours_of(level))


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    mark, colour = draw_mark(rng, level)
    return Question(
        image=mark.board(COLOURS[colour]),
        text=f"What colour is the mark{told_place(mark, level)}?",
        answer=colour,
        kind="crop" if mark.is_small else DIRECT,
        calls=[
            Call(
                thought="I need a closer look at the mark.", arguments={"code": f"display({mark.closer_look()})"}
            )
        ],
        others=colours_of(level),
    )


def colours_of(level: int) -> list[str]:
    """The colours that marks of a level have."""
    return list(COLOURS)[: _LEVELS[level].num_colours]


def told_place(mark: Mark, level: int) -> str:
    """Where the mark is, as it goes on after the word "mark"; empty where the level does not tell."""
    if not _LEVELS[level].place_is_told:
        return ""
    row, column = (1 + (part - 112) // 224 for part in (mark.y, mark.x))
    return f" in row {row}, column {column}"


FAMILY = Family(name="mark", title="Colour of a mark (synthetic)", draw=draw)
