"""The part of a report that shows episodes: a list of all, and some of every kind with their images."""

from __future__ import annotations

import base64
import html
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from agent.images import ImageFile, UnreadableImage
from agent.records import EpisodeKey
from evaluation.runs.folder import Latest
from evaluation.runs.rows import NOT_RUN, ScoreRow
from viewer.static_page import episode_card

_THUMBNAIL_PX = 360
_OF_A_KIND = 3
_FILTERS = ("category", "result", "decided", "kind", "stop")


def result_of(row: ScoreRow) -> str:
    """`right`, `wrong`, `partly` or `not evaluated`."""
    if row.correct is None:
        return "not evaluated"
    if row.correct:
        return "right"
    return "partly" if row.score else "wrong"


def choose(rows: Sequence[ScoreRow], most: int) -> list[EpisodeKey]:
    """Keys of episodes to show: a few of each result, category, kind of call and stop reason, in turns up to `most`."""
    groups: dict[tuple[str, ...], list[EpisodeKey]] = defaultdict(list)
    for row in rows:
        if row.stop_reason == NOT_RUN:
            continue
        result = result_of(row)
        kinds = (("category", row.category, result), ("kind", _first_call(row), result), ("stop", str(row.stop_reason)))
        for group in kinds:
            if len(groups[group]) < _OF_A_KIND:
                groups[group].append(row.key)
    chosen: dict[EpisodeKey, None] = {}
    for place in range(_OF_A_KIND):
        for members in groups.values():
            if place < len(members) and len(chosen) < most:
                chosen[members[place]] = None
    return list(chosen)


def browser(directory: Path, rows: Sequence[ScoreRow], *, most: int) -> str:
    """HTML of the list and the data it shows; works with run_page.js."""
    images: dict[str, str] = {}

    def show(image: ImageFile) -> str:
        if image.sha256 not in images:
            images[image.sha256] = _thumbnail(image)
        return f'<img class="shown" data-image="{image.sha256}" alt="image">'

    by_key = {row.key: row for row in rows}
    episodes, cards = Latest(directory), {}
    for key in choose(rows, most):
        row, episode = by_key[key], episodes.get(key)
        if episode is not None:
            cards[str(key)] = episode_card(str(key), episode, gold=row.gold, correct=row.correct, show=show)
    listed = [_listed(row) for row in rows]
    selects = "".join(f'<select id="f-{name}"><option value="">{name}: all</option></select>' for name in _FILTERS)
    head = "".join(
        f"<th>{name}</th>"
        for name in ("id", "category", "result", "decided by", "first call", "calls", "tokens", "stop", "")
    )
    return f"""
<section class="card" id="browser"><h3>Episodes behind the numbers</h3>
<p class="soft">All {len(rows)} are listed; {len(cards)} of every kind can be opened here, the others with <code>deepeyes view</code>.</p>
<div>{selects}<input id="words" placeholder="search"><label><input type="checkbox" id="embedded" checked>can be opened</label></div>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody id="list"></tbody></table></div>
<p><button id="back">back</button> <button id="next">next</button> <span class="soft" id="count"></span></p></section>
<div id="episode"></div>
{_data("rows", listed)}{_data("cards", cards)}{_data("images", images)}"""


def _first_call(row: ScoreRow) -> str:
    return row.first_call or "no tool"


def _listed(row: ScoreRow) -> list[str | int]:
    return [
        str(row.key),
        row.category,
        result_of(row),
        row.decided_by,
        _first_call(row),
        row.tool_calls,
        row.reply_tokens,
        str(row.stop_reason),
    ]


def _data(name: str, value: object) -> str:
    # `</script>` in a text would end the element.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _thumbnail(image: ImageFile) -> str:
    try:
        pixels = image.pil()
    except UnreadableImage:
        return ""
    pixels.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def behind(text: str, **where: str) -> str:
    """A number that leads to the episodes behind it."""
    data = "".join(f' data-{name}="{html.escape(value, quote=True)}"' for name, value in where.items())
    return f'<a class="behind"{data}>{html.escape(text)}</a>'
