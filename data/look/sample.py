"""A page of rows drawn at random, with their images, for looking at. It loads nothing and runs nothing.

    deepeyes data sample datasets/rl -n 40 --seed 1 --out samples.html

The same seed draws the same rows of the same files; each row is as likely as any other.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.files import write_whole
from agent.images import ImageFile, UnreadableImage, preview
from agent.messages import IMAGE_PLACEHOLDER
from data.look.command import add_paths, look_options
from data.look.files import NothingToLookAt, RowsFile, data_files
from data.look.rows import LookedRow, LookOptions, count_rows, rows_of
from data.look.show import described
from viewer.static_page import embedded, page

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


def samples_page(rows: Iterator[LookedRow], title: str) -> str:
    """The page."""
    room = _PAGE_BYTES
    cards = []
    for row in rows:
        card, used = _card(row, room)
        room -= used
        cards.append(card)
    body = f'<h1>{html.escape(title)}</h1><p class="soft">{len(cards)} rows drawn at random. Images are shown small.</p>'
    return page(title, body + "".join(cards))


def _card(row: LookedRow, room: int) -> tuple[str, int]:
    """(markup, bytes of images in it)."""
    pictures: list[str] = []
    used = 0
    for image in row.images[:_IMAGES_A_ROW]:
        markup = _picture(image, room - used)
        used += len(markup)
        pictures.append(markup)
    for image in row.images[_IMAGES_A_ROW:]:
        pictures.append(f'<span class="tag">{_text(described(image))}</span>')
    tags = "".join(f'<span class="tag">{_text(one)}</span>' for one in (row.kind, row.data_source, row.source) if one)
    parts = [f"<h3>{_text(Path(row.file).name)}, row {row.row} {tags}</h3>"]
    remaining = iter(pictures)
    parts += [_message(message["role"], message["content"], remaining) for message in row.messages]
    parts += remaining  # more images than placeholders
    if row.gold:
        parts.append(f"<p>Gold: <b>{' or '.join(_text(one) for one in row.gold)}</b></p>")
    if row.extra:
        parts.append(f'<pre class="soft">{_text(json.dumps(dict(row.extra), ensure_ascii=False, default=str))}</pre>')
    parts += [f'<p class="bad">{_text(problem.kind)}: {_text(problem.detail)}</p>' for problem in row.problems]
    return f"<article>{''.join(parts)}</article>", used


def _message(role: str, content: str, pictures: Iterator[str]) -> str:
    shown = []
    for index, text in enumerate(content[: _SHOWN_CHARS * 8].split(IMAGE_PLACEHOLDER)):
        if index:
            shown.append(next(pictures, '<span class="tag bad">no image for this placeholder</span>'))
        if text.strip():
            shown.append(f"<pre>{_text(text.strip())}</pre>")
    kind = "model" if role == "assistant" else ""
    who = f'<span class="who">{_text(role.upper())}</span>'
    if role == "system":  # it is the same in most rows, and long
        return f'<details class="turn"><summary>{who}</summary>{"".join(shown)}</details>'
    return f'<div class="turn {kind}"><div>{who}</div>{"".join(shown)}</div>'


def _picture(image: ImageFile, room: int) -> str:
    try:
        small = preview(image, _PREVIEW_PIXELS)
        if len(small.data) > _PREVIEW_BYTES:
            small = preview(image, _PREVIEW_PIXELS // 8)
        if len(small.data) > min(_PREVIEW_BYTES, room):
            return f'<span class="tag">not shown: {_text(described(image))}</span>'
        return f'{embedded(small, is_large=True)}<div class="soft">{_text(described(image))}</div>'
    except UnreadableImage as error:
        return f'<span class="tag bad">{_text(str(error))}</span>'


def _text(text: str) -> str:
    """Escaped, and cut where it is long."""
    left = len(text) - _SHOWN_CHARS
    shown = text[:_SHOWN_CHARS].encode("utf-8", "replace").decode()
    return html.escape(shown) + (f" … {left:,} more characters" if left > 0 else "")


def main(arguments: list[str] | None = None, prog: str = "deepeyes data sample") -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_paths(parser)
    parser.add_argument("-n", "--number", type=int, default=24, help="of rows; by default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the page")
    given = parser.parse_args(arguments)
    try:
        rows = drawn(data_files(given.paths), look_options(given.image_root), given.number, given.seed)
    except NothingToLookAt as error:
        parser.error(str(error))
    write_whole(given.out, [samples_page(rows, f"Samples of {', '.join(given.paths)}")])
    sys.stdout.write(f"{given.out}\n")
