"""A full-text index over a JSON-lines file, in SQLite FTS5. Needs no network and no server."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from agent.protocol import WebResult

_WORD = re.compile(r"\w+", re.UNICODE)
_SCHEMA = "CREATE VIRTUAL TABLE pages USING fts5(title, text, link UNINDEXED, tokenize='porter unicode61')"
_QUERY = """
SELECT title, link, snippet(pages, 1, '', '', ' … ', 48) FROM pages WHERE pages MATCH ?
ORDER BY bm25(pages, 4.0, 1.0) LIMIT ?
"""


class Settings(BaseModel):
    """Read from the recipe's `search:` block."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    """A JSON-lines file of `{"title", "text", "link"}`, or an index that `build_index` wrote (`*.sqlite`)."""


class Provider:
    """One index. Safe to share between episodes; a query on a small index takes well under a millisecond."""

    def __init__(self, settings: Settings) -> None:
        if not settings.path.exists():
            raise FileNotFoundError(
                f"no search index at {settings.path}; expected JSON lines of title, text and link, or an index made "
                "with `deepeyes search index`"
            )
        if settings.path.suffix == ".sqlite":
            self._db = sqlite3.connect(f"file:{settings.path}?mode=ro", uri=True, check_same_thread=False)
        else:
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            _fill(self._db, read_pages(settings.path))
        self._lock = threading.Lock()

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """Pages holding any of the words, best match first."""
        words = _WORD.findall(query)
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        with self._lock:
            rows = self._db.execute(_QUERY, (match, max_hits)).fetchall()
        return [WebResult(title=title, link=link, snippet=snippet) for title, link, snippet in rows]


def read_pages(path: Path) -> Iterable[Mapping[str, str]]:
    """Read and check a JSON-lines file.

    Raises:
        ValueError: A line is no JSON object with title and text; the message names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                page = json.loads(line)
                yield {"title": str(page["title"]), "text": str(page["text"]), "link": str(page.get("link", ""))}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{number} is no page ({error!r}); expected a JSON object with `title`, `text` and, if "
                    "there is one, `link`"
                ) from error


def build_index(source: Path, target: Path) -> int:
    """Write an index file next to nothing else; an interrupted build leaves no half index behind.

    Returns:
        Number of pages.
    """
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    connection = sqlite3.connect(partial)
    try:
        count = _fill(connection, read_pages(source))
    finally:
        connection.close()
    partial.replace(target)
    return count


def _fill(connection: sqlite3.Connection, pages: Iterable[Mapping[str, str]]) -> int:
    with connection:
        connection.execute(_SCHEMA)
        cursor = connection.executemany("INSERT INTO pages(title, text, link) VALUES (:title, :text, :link)", pages)
    return cursor.rowcount
