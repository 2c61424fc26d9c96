"""A recorded run: one SQLite file of questions and answers, that can be asked again without a network.

Entries are keyed by provider, kind, normalised query and options; thumbnails lie beside them by content hash. Several
processes of one machine may write at once; nodes share through Redis (cache.py) and merge their files afterwards.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.lines import MOST_VALUES, too_many_values

VERSION = 1
MOST_BYTES = 16 << 20
"""Of an answer or an image."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS entries (
  key TEXT PRIMARY KEY, provider TEXT, kind TEXT, query TEXT, options TEXT, response TEXT, checksum TEXT, recorded_at REAL);
CREATE TABLE IF NOT EXISTS blobs (sha256 TEXT PRIMARY KEY, data BLOB);
CREATE TABLE IF NOT EXISTS spending (id INTEGER PRIMARY KEY CHECK (id = 0), calls INTEGER, usd REAL);
INSERT OR IGNORE INTO spending VALUES (0, 0, 0.0);
"""
_log = logging.getLogger(__name__)
_COLUMNS = ("key", "provider", "kind", "query", "options", "response", "checksum", "recorded_at")
_ADD = "INSERT OR REPLACE INTO entries VALUES (:key, :provider, :kind, :query, :options, :response, :checksum, :recorded_at)"


class RecordingError(ValueError):
    """The file cannot be used as a recording."""


class CorruptEntry(Exception):
    """An entry does not hold what was written, or more than is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedQuestion:
    """What was asked of whom."""

    provider: str
    kind: str
    """`search`, `image` or `page`."""
    query: str
    """As it was asked; the key takes it without differences of case, width and spaces."""
    options: Mapping[str, Any]
    """What else decides the answer."""

    @property
    def key(self) -> str:
        """Hex digest."""
        exact = self.kind == "page"  # the case of a link means something
        query = self.query if exact else " ".join(unicodedata.normalize("NFKC", self.query).casefold().split())
        parts = [self.provider, self.kind, query, dict(self.options)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: JSON, and the images it names by hash."""

    content: Any
    blobs: Mapping[str, bytes] = field(default_factory=dict)


class Recording:
    """One file.

    Args:
        path: Made if `writable`.
        writable: False opens an existing file and never changes it.

    Attributes:
        damaged: Entries that `export` and `merge` have left out so far.

    Raises:
        FileNotFoundError: Nothing to replay there.
        RecordingError: No recording, or one of another version.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        if not writable and not path.is_file():
            raise FileNotFoundError(f"no recording at {path}; make one with mode: record")
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"file:{path.resolve()}?mode={'rwc' if writable else 'ro'}"
        self._lock = threading.Lock()
        self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=30.0, isolation_level=None)
        # A recording may be somebody else's: SQLite refuses a larger value before it reads it.
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        self.damaged = 0
        try:
            self._open(writable)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise RecordingError(f"{path} is no recording ({error}); give another file") from error
        except RecordingError:
            self._db.close()
            raise

    def _open(self, writable: bool) -> None:
        if writable:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
        row = self._db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        found = row[0] if row else "none"
        if found != str(VERSION):
            raise RecordingError(
                f"{self.path} is a recording of version {found}, this code reads version {VERSION}; export it with the code "
                "that wrote it, or record anew"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, question: AskedQuestion) -> Response | None:
        """The recorded answer, or None.

        Raises:
            CorruptEntry: It is not what was written.
        """
        try:
            with self._lock:
                row = self._db.execute("SELECT response, checksum FROM entries WHERE key = ?", (question.key,)).fetchone()
                return None if row is None else self._response(*row)
        except (sqlite3.DataError, CorruptEntry) as error:
            raise CorruptEntry(f"the entry of {question.query!r} in {self.path} cannot be read: {error}") from error

    def _response(self, text: Any, checksum: Any) -> Response:
        """What an entry holds.

        Raises:
            CorruptEntry: It is not what was written.
            sqlite3.DataError: An image is larger than is read.
        """
        if not isinstance(text, str) or _checksum(text) != checksum:
            raise CorruptEntry("it is damaged")
        if too_many_values(text.encode()):
            raise CorruptEntry(f"it holds more than {MOST_VALUES:,} values")
        blobs = {}
        try:
            saved = json.loads(text)
            content, names = saved["content"], list(saved["blobs"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise CorruptEntry(f"it is none ({type(error).__name__}: {error})") from error
        for name in names:
            found = self._db.execute("SELECT data FROM blobs WHERE sha256 = ?", (name,)).fetchone()
            if found is None or hashlib.sha256(found[0]).hexdigest() != name:
                raise CorruptEntry("an image of it is damaged")
            blobs[name] = found[0]
        return Response(content, blobs)

    def put(self, question: AskedQuestion, response: Response) -> None:
        """Write an answer; an older one to the same question is replaced. One that is too large is said and not kept."""
        text = json.dumps({"content": response.content, "blobs": list(response.blobs)}, ensure_ascii=False)
        row = {
            "key": question.key, "provider": question.provider, "kind": question.kind, "query": question.query,
            "options": json.dumps(dict(question.options), sort_keys=True), "response": text, "checksum": _checksum(text),
            "recorded_at": time.time(),
        }  # fmt: skip
        if max(map(len, (text.encode(), *response.blobs.values()))) > MOST_BYTES // 2:  # a row is bounded as a whole, too
            _log.warning("the answer to %.100r is too large for %s and is not recorded", question.query, self.path)
            return
        self._write([row], response.blobs)

    def _write(self, rows: list[dict[str, Any]], blobs: Mapping[str, bytes]) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?)", blobs.items())
                self._db.executemany(_ADD, rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def spend(self, calls: int, usd: float, *, max_calls: int | None, max_usd: float | None) -> bool:
        """See `agent.search.web.Ledger`; survives the process, so a run that is resumed keeps its budget."""
        with self._lock:
            done = self._db.execute(
                "UPDATE spending SET calls = calls + :calls, usd = usd + :usd"
                " WHERE (:max_calls IS NULL OR calls + :calls <= :max_calls)"
                " AND (:max_usd IS NULL OR usd + :usd <= :max_usd + 1e-9)",
                {"calls": calls, "usd": usd, "max_calls": max_calls, "max_usd": max_usd},
            )
            return done.rowcount == 1

    def spent(self) -> tuple[int, float]:
        """(calls, dollars)."""
        with self._lock:
            calls, usd = self._db.execute("SELECT calls, usd FROM spending").fetchone()
        return int(calls), float(usd)

    def stats(self) -> dict[str, Any]:
        """Entries by provider and kind, when they were recorded, what they cost."""
        with self._lock:
            groups = self._db.execute(
                "SELECT provider, kind, count(*), min(recorded_at), max(recorded_at) FROM entries"
                " GROUP BY 1, 2 ORDER BY 1, 2"
            ).fetchall()
            images = self._db.execute("SELECT count(*), coalesce(sum(length(data)), 0) FROM blobs").fetchone()
        calls, usd = self.spent()
        return {
            "entries": [
                {"provider": provider, "kind": kind, "entries": count, "first": first, "last": last}
                for provider, kind, count, first, last in groups
            ],
            "images": images[0],
            "image_bytes": images[1],
            "calls": calls,
            "usd": round(usd, 6),
        }

    def export(self) -> Iterator[dict[str, Any]]:
        """Every entry as plain JSON, images in base64, ordered by key."""
        for row, response in self._rows():
            yield {
                **{name: row[name] for name in ("provider", "kind", "query", "recorded_at")},
                "options": json.loads(row["options"]),
                "content": response.content,
                "images": {name: base64.b64encode(data).decode() for name, data in response.blobs.items()},
            }

    def _rows(self) -> Iterator[tuple[dict[str, Any], Response]]:
        """Every undamaged entry with what it holds, ordered by key; the others are said by name, and counted."""
        with self._lock:
            keys = [row[0] for row in self._db.execute("SELECT key FROM entries ORDER BY key")]
        for key in keys:
            try:
                with self._lock:
                    found = self._db.execute("SELECT * FROM entries WHERE key = ?", (key,)).fetchone()
                    row = dict(zip(_COLUMNS, found, strict=True))
                    json.loads(row["options"])
                    response = self._response(row["response"], row["checksum"])
            except (sqlite3.DataError, CorruptEntry, ValueError, TypeError, RecursionError) as error:
                self.damaged += 1
                _log.warning("entry %.64s of %s is left out: %s", key, self.path, error)
                continue
            yield row, response

    def merge(self, other: Recording) -> tuple[int, int]:
        """Take over what another recording has and this one has not.

        Returns:
            (entries added, entries kept that differ from the other's).
        """
        added = differing = 0
        for row, response in other._rows():
            with self._lock:
                mine = self._db.execute("SELECT response FROM entries WHERE key = ?", (row["key"],)).fetchone()
            if mine is None:
                self._write([row], response.blobs)
                added += 1
            else:
                differing += mine[0] != row["response"]
        return added, differing


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
