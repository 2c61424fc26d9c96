"""What was said in a run's episodes: an index of all words, and the reasons of failures, made while nobody waits for it.

It is a SQLite file of its own beside that of viewer/index.py and holds no text: what a hit says is read from its record.
A thread reads on in batches, each of them written whole or not at all, as long as there is something new. Scripts that write
without spaces are indexed letter by letter, so that any part of a Chinese sentence is found.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.records import Rollout
from viewer.failures import Kind, reasons
from viewer.filters import phrases, spaced
from viewer.index import EpisodeIndex

_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (made TEXT, read INTEGER);
CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE reasons (kind TEXT, reason TEXT, id INTEGER, PRIMARY KEY (kind, reason, id)) WITHOUT ROWID;
INSERT INTO meta VALUES ('', 0);
"""
_BATCH = 200
_MOST_CHARS = 1_000_000
"""Of one episode."""
_AROUND_CHARS = 90


@dataclass(frozen=True, slots=True)
class Snippet:
    """Where a query's first words stand in an episode."""

    before: str
    found: str
    after: str
    turn: int | None
    """From 1; None: in the question."""


class Words:
    """The words of one run; they are the tables `said` of its index.

    Args:
        index: The run's.
    """

    def __init__(self, index: EpisodeIndex) -> None:
        self._index = index
        self._closed = threading.Event()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._db, path = self._open()
        index.attach(path)

    def _open(self) -> tuple[sqlite3.Connection, Path]:
        if self._index.path is not None:
            name = self._index.path.name.removesuffix(".sqlite").removesuffix(".index")
            try:
                return _opened(path := self._index.path.with_name(f"{name}.words.sqlite")), path
            except (sqlite3.DatabaseError, OSError):
                pass  # read-only by now, no room, or something else of that name
        self._folder = tempfile.TemporaryDirectory(prefix="deepeyes_view_")
        return _opened(path := Path(self._folder.name) / "words.sqlite"), path

    def read(self) -> int:
        """How many episodes have been read."""
        found = self._index.select(
            "SELECT (SELECT count(*) FROM episodes WHERE id <= read) FROM said.meta WHERE made = "
            "(SELECT made FROM main.meta)"
        )
        return int(found[0][0]) if found else 0

    def follow(self, *, wait_s: float = 0.0) -> None:
        """Read on until all that the index knows is read, and wait for it as long as one may."""
        with self._start_lock:
            if not self._closed.is_set() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._read_on, daemon=True, name="words")
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(wait_s)

    def close(self) -> None:
        """Stop reading and close the file."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._db.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _read_on(self) -> None:
        while not self._closed.is_set():
            began = time.monotonic()
            if not self._batch():
                return
            # A third of the time is left to those who look at the page, and to the run itself.
            self._closed.wait((time.monotonic() - began) / 2)

    def _batch(self) -> bool:
        """Read some episodes. Returns whether there may be more."""
        ((made,),) = self._index.select("SELECT made FROM main.meta")
        known, read = self._db.execute("SELECT made, read FROM meta").fetchone()
        if known != made:
            self._begin_anew(made)
            return True
        next_ones = "SELECT id FROM episodes WHERE id > ? ORDER BY id LIMIT ?"
        ids = [row[0] for row in self._index.select(next_ones, (read, _BATCH))]
        texts, found = list[tuple[int, str]](), list[tuple[Kind, str, int]]()
        for number in ids:
            try:
                rollout = self._index.rollout(number)
            except (LookupError, OSError):
                continue  # it is listed, and says when it is opened why it cannot be
            texts.append((number, spaced("\n".join(text for _, text in said(rollout))[:_MOST_CHARS])))
            found += [(kind, reason, number) for kind, reason in reasons(rollout)]
        if not ids:
            return False
        self._db.execute("BEGIN IMMEDIATE")
        # Another viewer of the same run may have been faster.
        if self._db.execute("SELECT made, read FROM meta").fetchone() == (made, read):
            self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", texts)
            self._db.executemany("INSERT OR IGNORE INTO reasons VALUES (?, ?, ?)", found)
            self._db.execute("UPDATE meta SET read = ?", (ids[-1],))
        self._db.execute("COMMIT")
        return True

    def _begin_anew(self, made: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT INTO words (words) VALUES ('delete-all')")
        self._db.execute("DELETE FROM reasons")
        self._db.execute("UPDATE meta SET made = ?, read = 0", (made,))
        self._db.execute("COMMIT")


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, timeout=30.0, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
        for table in ("meta", "words", "reasons"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
    return db


def said(rollout: Rollout) -> Iterator[tuple[int | None, str]]:
    """The texts of a conversation but the system's, each with the number of its turn, from 1; None: the question."""
    for message in rollout.episode.opening:
        if message.role != "system":
            yield None, message.text
    for number, turn in enumerate(rollout.episode.turns, start=1):
        yield number, turn.reply.primer + turn.reply.text
        if turn.observation is not None:
            yield number, turn.observation.text


def snippet(rollout: Rollout, query: str) -> Snippet | None:
    """Where an episode says the first words of a query; None where they stand with other accents only.

    Raises:
        ValueError: There is no word in the query.
    """
    words = re.findall(r"[^\W_]+", spaced(phrases(query)[0]))
    pattern = re.compile(r"[\W_]{0,20}".join(map(re.escape, words)), re.IGNORECASE)
    for turn, text in said(rollout):
        if hit := pattern.search(text, 0, _MOST_CHARS):
            before = text[max(0, hit.start() - _AROUND_CHARS) : hit.start()]
            return Snippet(before, hit[0], text[hit.end() : hit.end() + _AROUND_CHARS], turn)
    return None
