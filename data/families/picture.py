"""The name of a picture that lies, at another size, in a local folder of images.

The label's rule is that of the family `lookup`: pictures of the first quarter are taught by heart, the others are split and
can only be found. Every question shows its picture at a size of its own, so that no two files are alike; the folder's
search, by perceptual hash, finds it all the same (agent/search/providers/local_images.py).
"""

from __future__ import annotations

import random

from PIL import Image

from data.families import DIRECT, Call, Family, Question
from data.families._invented import invented_names, shares_of
from data.families.mark import COLOURS

_PICTURES = {1: 64, 2: 128, 3: 256}
_KNOWN_FRAC = 0.25
_FIELDS = 4
_FIELD_PX = 64
_SIDE_PX = _FIELDS * _FIELD_PX
_SIZES_PX = range(160, 449, 4)


def pictures(level: int) -> list[tuple[str, Image.Image]]:
    """(name, image) of each, the known ones first: coloured fields, half of them split by a bar."""
    names = invented_names(_PICTURES[level], world="pictures")
    return [(name, _picture(random.Random(f"picture {name}"))) for name in names]


def _picture(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (_SIDE_PX, _SIDE_PX), (228, 228, 228))
    for number in range(_FIELDS * _FIELDS):
        x, y = (_FIELD_PX * part for part in divmod(number, _FIELDS))
        image.paste(rng.choice([*COLOURS.values(), (40, 40, 40)]), (x, y, x + _FIELD_PX, y + _FIELD_PX))
        if rng.random() < 0.5:
            image.paste(rng.choice(list(COLOURS.values())), (x, y, x + _FIELD_PX, y + rng.randrange(12, 44)))
    return image


def draw(rng: random.Random, level: int, split: str) -> Question:
    """One question."""
    names = invented_names(_PICTURES[level], world="pictures")
    known = int(len(names) * _KNOWN_FRAC)
    is_known = rng.random() < 0.5
    number = rng.randrange(known) if is_known else rng.choice(list(shares_of(len(names), split, known=known)))
    # A split's sizes are its own: no other split has the same file.
    sizes = list(shares_of(len(_SIZES_PX), split, known=0))
    side_px = _SIZES_PX[rng.choice(sizes)]
    image = _picture(random.Random(f"picture {names[number]}")).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return Question(
        image=image,
        text="What is this picture called?",
        answer=names[number],
        kind=DIRECT if is_known else "image",
        calls=[Call(thought="I do not know this picture.", name="image_search")],
        others=names,
    )


FAMILY = Family(
    name="picture",
    title="Name of a picture in a local folder (synthetic)",
    draw=draw,
    tools=("image_search",),
    pictures=pictures,
)
