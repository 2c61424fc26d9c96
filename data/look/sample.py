"""A page of rows drawn at random, with their images, for looking at. It loads nothing and runs nothing.

    deepeyes data sample datasets/rl -n 40 --seed 1 --out samples.html

The same seed draws the same rows of the same files; each row is as likely as any other.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from agent.files import write_whole
from agent.images import ImageFile, UnreadableImage, preview
from agent.messages import IMAGE_PLACEHOLDER
from code_sandbox.command_line import CommandParser, positive, program, sign_of_life
from data.look.command import add_paths, look_options
from data.look.files import RowsFile, data_files
from data.look.rows import LookedRow, LookOptions, count_rows, rows_of
from data.look.show import described
from viewer.static_page import embedded
from viewer.templates import render

_PREVIEW_PIXELS = 160_000
_PREVIEW_BYTES = 256 << 10
_PAGE_BYTES = 24 << 20
"""Of all images together: beyond it they are named, and not shown."""
_IMAGES_A_ROW = 12
_SHOWN_CHARS = 4000


def drawn(files: Sequence[RowsFile], options: LookOptions, number: int, seed: int) -> Iterator[LookedRow]:
    """Rows of all files, each as likely as any other, in the order of the files.

    Args:
        files: Of `data_files`.
        options: Where images lie.
        number: How many; fewer if there are fewer.
        seed: The same rows of the same files.
    """
    sizes = [count_rows(file) for file in files]
    total = sum(sizes)
    chosen = sorted(random.Random(seed).sample(range(total), min(number, total)))  # noqa: S311 - samples, no secret
    start = 0
    for file, size in zip(files, sizes, strict=True):
        wanted = {one - start for one in chosen if start <= one < start + size}
        start += size
        if wanted:
            yield from rows_of(file, options, wanted)


def samples_page(rows: Iterator[LookedRow], source: str) -> Markup:
    """The page; `source` says of what."""
    room = _PAGE_BYTES
    cards = []
    for row in rows:
        card, used = _card(row, room)
        room -= used
        cards.append(card)
    return render(Path(__file__).with_suffix(".html"), title="Samples", source=_cut(source), cards=cards)


def _card(row: LookedRow, room: int) -> tuple[dict[str, Any], int]:
    """(what the template shows of a row, bytes of images in it)."""
    pictures: list[Markup] = []
    used = 0
    for image in row.images[:_IMAGES_A_ROW]:
        markup = _picture(image, room - used)
        used += len(markup)
        pictures.append(markup)
    for image in row.images[_IMAGES_A_ROW:]:
        pictures.append(Markup('<span class="tag">{}</span>').format(_cut(described(image))))
    remaining = iter(pictures)
    messages = [(message["role"], list(_parts(message["content"], remaining))) for message in row.messages]
    card = {
        "title": _cut(f"{Path(row.file).name}, row {row.row}"),
        "tags": [_cut(one) for one in (row.kind, row.data_source, row.source) if one],
        "messages": messages,
        "images": list(remaining),  # more of them than placeholders
        "gold": [_cut(one) for one in row.gold],
        "extra": _cut(json.dumps(dict(row.extra), ensure_ascii=False, default=str)) if row.extra else "",
        "problems": [(problem.kind, _cut(problem.detail)) for problem in row.problems],
    }
    return card, used


def _parts(content: str, pictures: Iterator[Markup]) -> Iterator[str]:
    """Texts and images in the order of a message; images are markup already."""
    for index, text in enumerate(content[: _SHOWN_CHARS * 8].split(IMAGE_PLACEHOLDER)):
        if index:
            yield next(pictures, Markup('<span class="tag bad">no image for this placeholder</span>'))
        if text.strip():
            yield _cut(text.strip())


def _picture(image: ImageFile, room: int) -> Markup:
    try:
        small = preview(image, _PREVIEW_PIXELS)
        if len(small.data) > _PREVIEW_BYTES:
            small = preview(image, _PREVIEW_PIXELS // 8)
        if len(small.data) > min(_PREVIEW_BYTES, room):
            return Markup('<span class="tag">not shown: {}</span>').format(_cut(described(image)))
        shown = embedded(small, is_large=True)
        return shown + Markup('<div class="soft">{}</div>').format(_cut(described(image)))
    except UnreadableImage as error:
        return Markup('<span class="tag bad">{}</span>').format(_cut(str(error)))


def _cut(text: str) -> str:
    """A text as a page shows it: cut where it is long, and without halves of characters."""
    left = len(text) - _SHOWN_CHARS
    shown = text[:_SHOWN_CHARS].encode("utf-8", "replace").decode()
    return shown + (f" … {left:,} more characters" if left > 0 else "")


def main(arguments: list[str] | None = None, prog: str = "deepeyes data sample") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    add_paths(parser)
    parser.add_argument("-n", "--number", type=positive, default=24, help="of rows; by default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    given = parser.parse_args(arguments)
    with program(prog), sign_of_life("reading"):
        rows = drawn(data_files(given.paths), look_options(given.image_root), given.number, given.seed)
        write_whole(given.out, [samples_page(rows, ", ".join(given.paths))])
        sys.stdout.write(f"{given.out}\n")
