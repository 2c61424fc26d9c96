"""The part of a report that shows episodes: a list of all, and some of every kind with their images."""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
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


def listed_episodes(directory: Path, rows: Sequence[ScoreRow], *, most: int) -> dict[str, object]:
    """What `listed_episodes.html` shows and run_page.js reads: a list of all, and at most `most` that can be opened."""
    images: dict[str, str] = {}

    def show(image: ImageFile) -> Markup:
        if image.sha256 not in images:
            images[image.sha256] = _thumbnail(image)
        return Markup('<img class="shown" data-image="{}" alt="image">').format(image.sha256)

    by_key = {row.key: row for row in rows}
    episodes, cards = Latest(directory), {}
    for key in choose(rows, most):
        row, episode = by_key[key], episodes.get(key)
        if episode is not None:
            cards[str(key)] = episode_card(str(key), episode, gold=row.gold, correct=row.correct, show=show)
    return {
        "listed": len(rows),
        "opened": len(cards),
        "filters": _FILTERS,
        "columns": ("id", "category", "result", "decided by", "first call", "calls", "tokens", "stop"),
        "data": {"rows": _data([_listed(row) for row in rows]), "cards": _data(cards), "images": _data(images)},
    }


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


def _data(value: object) -> Markup:
    # `</script>` in a text would end the element.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    return Markup(text)  # noqa: S704 - nothing in a script element is markup


def _thumbnail(image: ImageFile) -> str:
    try:
        pixels = image.pil()
    except UnreadableImage:
        return ""
    pixels.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
