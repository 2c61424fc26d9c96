"""Results out of other people's JSON."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import ToolUnavailable
from agent.search import WebResult

_TAG = re.compile(r"</?(?:b|strong|em|i|mark|span)\b[^>]*>", re.IGNORECASE)


def web_results(
    source: str, answer: Any, path: Sequence[str], names: Mapping[str, str], *, max_hits: int
) -> list[WebResult]:
    """Read a list of results.

    Args:
        source: For the error.
        answer: Parsed JSON.
        path: Keys that lead to the list; none there is an empty list.
        names: Our field -> theirs.
        max_hits: At most so many.

    Raises:
        ToolUnavailable: The answer has another shape: their API has changed.
    """
    found = answer
    for key in path:
        if not isinstance(found, dict):
            raise ToolUnavailable(f"{source}: expected an object with {'.'.join(path)}, got {str(answer)[:200]}")
        found = found.get(key, {} if key != path[-1] else [])
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ToolUnavailable(f"{source}: expected a list of objects at {'.'.join(path)}, got {str(found)[:200]}")
    rows = [{ours: _plain(row.get(theirs)) for ours, theirs in names.items()} for row in found]
    return [WebResult(**row) for row in rows if row["title"] or row["link"]][:max_hits]


def _plain(value: Any) -> str:
    """Text without highlighting tags and entities."""
    return html.unescape(_TAG.sub("", str(value or ""))).strip()
