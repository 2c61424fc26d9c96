"""An index over a run's records: 100,000 episodes are filtered and sorted without being read again.

It is a SQLite file beside the records (in the cache folder of the user where that cannot be written), holds where each line
begins, and is brought up to date by reading what was appended since: a run can be watched while it trains.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.episode_rows import UnreadableRecord
from agent.records import Rollout, RolloutHead
from agent.scores import read_episode_scores
from agent.trajectory import Place, RecordReader, record_files
from viewer.filters import where
from viewer.listing import COLUMNS, EpisodePage, EpisodePlace, ListedEpisode, order_by

VERSION = 5
FACETS = ("step", "source", "category", "stop_reason", "validation")
_SCHEMA = """
CREATE TABLE meta (version INTEGER, made TEXT);
CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER, head TEXT, unreadable INTEGER);
CREATE TABLE episodes (
  id INTEGER PRIMARY KEY, file INTEGER, offset INTEGER, item_id TEXT, sample INTEGER, step INTEGER, category TEXT,
  stop_reason TEXT, reward REAL, score REAL, answer TEXT, gold TEXT, turns INTEGER, tool_calls INTEGER,
  tool_errors INTEGER, tokens INTEGER, wall_s REAL, episode_id TEXT,
  source TEXT, grp TEXT, validation INTEGER);
CREATE TABLE tools (tool TEXT, id INTEGER, PRIMARY KEY (tool, id)) WITHOUT ROWID;
CREATE INDEX by_step ON episodes (step);
CREATE INDEX by_category ON episodes (category);
CREATE INDEX by_stop ON episodes (stop_reason);
CREATE INDEX by_reward ON episodes (reward);
CREATE INDEX by_item ON episodes (item_id, sample);
CREATE INDEX by_episode ON episodes (episode_id);
CREATE INDEX by_group ON episodes (step, grp);
"""
_COMMIT_EVERY = 5_000
_SHOWN_CHARS = 200
_NO_RUNS = ("checkpoints", "images", "node_modules")
"""Folders with many files and no episodes."""


def find_records(directory: Path) -> Path:
    """The folder with `episodes.jsonl` or `episodes-*.jsonl`: this one, or the only one below it.

    Raises:
        FileNotFoundError: None.
        ValueError: Several; the message lists them.
    """
    found = find_runs(directory)
    if len(found) > 1:
        raise ValueError(f"{directory} holds several runs; give one of {', '.join(map(str, found))}")
    return found[0]


def find_runs(directory: Path) -> list[Path]:
    """The folders with episodes: this one, or all below it, by name. Nothing is looked for below such a folder.

    Raises:
        FileNotFoundError: None.
    """
    found = list[Path]()
    for folder, names, _ in os.walk(directory):
        if record_files(Path(folder)):
            found.append(Path(folder))
            names.clear()
        else:
            names[:] = sorted(name for name in names if name not in _NO_RUNS and not name.startswith("."))
    if not found:
        raise FileNotFoundError(f"no episodes.jsonl in {directory} or below it")
    return found


class EpisodeIndex:
    """One run.

    Args:
        directory: With its episodes, in one file or in one for each process that wrote them.
        within_s: See `refresh`.

    Attributes:
        path: Where it is kept; None if there is no place for it.
        unread_bytes: Of the records, that the last `refresh` had no time for.
    """

    def __init__(self, directory: Path, *, within_s: float = math.inf) -> None:
        self.directory = directory
        self.path: Path | None = None
        self.unread_bytes = 0
        self._lock = threading.Lock()
        self._scored_at = 0
        self._db = self._open()
        self.refresh(within_s)

    def _open(self) -> sqlite3.Connection:
        name = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepeyes"
        for path in (self.directory / "episodes.index.sqlite", cache / f"{name}.sqlite"):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                db = sqlite3.connect(path, check_same_thread=False, timeout=30.0, isolation_level=None)
                db.execute("PRAGMA journal_mode=WAL")
                if not self._fits(db):
                    self._empty(db)
                self.path = path
                return db
            except (sqlite3.DatabaseError, OSError):
                continue  # read-only, no room, or something else of that name
        db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._empty(db)
        return db

    def _fits(self, db: sqlite3.Connection) -> bool:
        """Whether the index is of these records, which may only have grown and been joined by others."""
        try:
            row = db.execute("SELECT version FROM meta").fetchone()
            files = db.execute("SELECT name, size, head FROM files").fetchall()
        except sqlite3.DatabaseError:
            return False
        if row is None or row[0] != VERSION:
            return False
        there = {path.name: path for path in record_files(self.directory)}
        return all(
            name in there and size <= there[name].stat().st_size and head == _head(there[name]) for name, size, head in files
        )

    def _empty(self, db: sqlite3.Connection) -> None:
        for table in ("meta", "files", "episodes", "tools"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        db.executescript(_SCHEMA)
        db.execute("INSERT INTO meta VALUES (?, ?)", (VERSION, uuid.uuid4().hex))

    def attach(self, path: Path) -> None:
        """Have the tables of another database beside these, as those of `said`."""
        with self._lock:
            self._db.execute("ATTACH ? AS said", (str(path),))

    def select(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query over `episodes` and `tools`."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def refresh(self, within_s: float = math.inf) -> int:
        """Index what was appended, as far as the time allows; the next call goes on. Returns the number of episodes."""
        with self._lock:
            until = time.monotonic() + within_s
            self.unread_bytes = 0
            if not self._fits(self._db):
                self._empty(self._db)  # a resumed run has forgotten the steps that it makes again
                self._scored_at = 0
            for path in record_files(self.directory):
                self._grow(path, until)
            if not self.unread_bytes:
                self._take_scores()
            (count,) = self._db.execute("SELECT count(*) FROM episodes").fetchone()
        return int(count)

    def _grow(self, path: Path, until: float) -> None:
        found = self._db.execute("SELECT id, size FROM files WHERE name = ?", (path.name,)).fetchone()
        if found is None:
            if not _head(path):
                return  # its first line is still being written
            insert = "INSERT INTO files VALUES (NULL, ?, 0, ?, 0)"
            found = self._db.execute(insert, (path.name, _head(path))).lastrowid, 0
        number, position = found
        if path.stat().st_size > position:
            self._read(path, number, position, until)

    def _take_scores(self) -> None:
        """Give each episode its score; an evaluation's lie beside its episodes, and are made anew at any time.

        An episode that failed and was repeated has none: the score is the repetition's.
        """
        path = self.directory / "scores.jsonl"
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return
        if stamp == self._scored_at:
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("UPDATE episodes SET score = NULL")
        self._db.executemany(
            "UPDATE episodes SET score = ? WHERE id = (SELECT max(id) FROM episodes WHERE item_id = ? AND sample = ?)",
            ((row.score, row.item_id, row.sample) for row in read_episode_scores(path)),
        )
        self._db.execute("COMMIT")
        self._scored_at = stamp

    def _read(self, path: Path, file: int, position: int, until: float) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        reader = RecordReader(path)
        try:
            for number, (place, head) in enumerate(reader.heads(position), start=1):
                self._add(place, head, file)
                self._scored_at = 0  # a score may be of this one
                position = place.end
                if number % _COMMIT_EVERY == 0:
                    self._db.execute("UPDATE files SET size = ? WHERE id = ?", (position, file))
                    self._db.execute("COMMIT")
                    self._db.execute("BEGIN IMMEDIATE")
                if time.monotonic() > until:
                    self.unread_bytes += path.stat().st_size - position
                    break
            else:
                # What cannot be read is passed for good, and the last line only when it is whole.
                position = max(position, reader.passed)
        finally:
            # Also where a newer version wrote the next line: the connection goes on, and so does the page.
            grown = "UPDATE files SET size = ?, unreadable = unreadable + ? WHERE id = ?"
            self._db.execute(grown, (position, reader.unreadable, file))
            self._db.execute("COMMIT")

    @property
    def unreadable(self) -> int:
        """Lines that were left out; the log has their names."""
        with self._lock:
            (count,) = self._db.execute("SELECT coalesce(sum(unreadable), 0) FROM files").fetchone()
        return int(count)

    def _add(self, place: Place, head: RolloutHead, file: int) -> None:
        facts = head.facts
        cursor = self._db.execute(
            f"INSERT INTO episodes VALUES ({', '.join('?' * 21)})",  # noqa: S608
            (
                None, file, place.offset, facts.item_id or head.episode_id, facts.sample, facts.step,
                facts.category or facts.source, head.stop_reason.value, facts.reward, facts.score,
                (head.answer or "")[:_SHOWN_CHARS], facts.gold[:_SHOWN_CHARS], head.num_turns, len(head.tools),
                head.tool_errors, head.num_tokens, head.wall_s, head.episode_id, facts.source,
                facts.group or facts.item_id, facts.validation,
            ),
        )  # fmt: skip
        self._db.executemany("INSERT INTO tools VALUES (?, ?)", [(tool, cursor.lastrowid) for tool in set(head.tools)])

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        """The values of each filter, and how many episodes have them."""
        with self._lock:
            found = {
                name: self._db.execute(f"SELECT {name}, count(*) FROM episodes GROUP BY 1 ORDER BY 1").fetchall()  # noqa: S608
                for name in FACETS
            }
            found["tool"] = self._db.execute("SELECT tool, count(*) FROM tools GROUP BY 1 ORDER BY 1").fetchall()
        return found

    def page(
        self, filters: Mapping[str, str], *, sort: str = "id", descending: bool = False, offset: int = 0, limit: int = 100
    ) -> EpisodePage:
        """One page of the list.

        Args:
            filters: See `viewer.filters.where`.
            sort: A column.
            descending: Largest first.
            offset: Rows before the page.
            limit: Rows of the page.

        Raises:
            ValueError: An unknown column, or a number that is none.
        """
        fits, values = where(filters)
        order = order_by(sort, descending=descending)
        means = f"SELECT avg(score) AS mean FROM episodes WHERE {fits} AND score IS NOT NULL GROUP BY item_id"  # noqa: S608
        select = f"SELECT {', '.join(COLUMNS)} FROM episodes WHERE {fits} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
        with self._lock:
            (total,) = self._db.execute(f"SELECT count(*) FROM episodes WHERE {fits}", values).fetchone()  # noqa: S608
            items, accuracy = self._db.execute(f"SELECT count(*), avg(mean) FROM ({means})", values).fetchone()  # noqa: S608
            found = self._db.execute(select, [*values, limit, offset]).fetchall()
        return EpisodePage(int(total), int(items), accuracy, [ListedEpisode(*row) for row in found])

    def place(
        self, episode_id: str, filters: Mapping[str, str], *, sort: str = "id", descending: bool = False
    ) -> EpisodePlace:
        """Where an episode stands among those that fit. The arguments are those of `page`.

        Raises:
            ValueError: An unknown column, or a number that is none.
        """
        fits, values = where(filters)
        order = order_by(sort, descending=descending)
        listed = (
            "SELECT id, episode_id, lag(episode_id) OVER listed AS before, lead(episode_id) OVER listed AS behind, "  # noqa: S608
            f"row_number() OVER listed AS number FROM episodes WHERE {fits} WINDOW listed AS (ORDER BY {order})"
        )
        select = f"SELECT before, behind, number FROM ({listed}) WHERE episode_id = ? ORDER BY id DESC LIMIT 1"  # noqa: S608
        with self._lock:
            (total,) = self._db.execute(f"SELECT count(*) FROM episodes WHERE {fits}", values).fetchone()  # noqa: S608
            found = self._db.execute(select, [*values, episode_id]).fetchone()
        previous, following, number = found or (None, None, 0)
        return EpisodePlace(previous, following, int(number), int(total))

    def items(self) -> dict[str, ListedEpisode]:
        """Each item's last episode, with the mean score and reward of all its episodes (of training: in its last step)."""
        last = "SELECT *, dense_rank() OVER (PARTITION BY item_id ORDER BY step DESC) AS rank FROM episodes"
        select = f"SELECT {', '.join(COLUMNS)} FROM ({last}) WHERE rank = 1 ORDER BY id"  # noqa: S608
        members: dict[str, list[ListedEpisode]] = defaultdict(list)
        with self._lock:
            for row in self._db.execute(select):
                episode = ListedEpisode(*row)
                members[episode.item_id].append(episode)
        return {
            item: replace(found[-1], score=_mean([one.score for one in found]), reward=_mean([one.reward for one in found]))
            for item, found in members.items()
        }

    def number_of(self, episode_id: str) -> int:
        """The number of an episode; of one that was recorded several times, the last one's.

        Raises:
            LookupError: No such episode.
        """
        with self._lock:
            (number,) = self._db.execute("SELECT max(id) FROM episodes WHERE episode_id = ?", (episode_id,)).fetchone()
        if number is None:
            raise LookupError(f"no episode {episode_id[:200]!r} in {self.directory}")
        return int(number)

    def rollout(self, number: int) -> Rollout:
        """A whole episode with its facts.

        Raises:
            LookupError: No such episode, or its line cannot be read any more.
        """
        with self._lock:
            select = "SELECT name, offset FROM episodes JOIN files ON files.id = file WHERE episodes.id = ?"
            place = self._db.execute(select, (number,)).fetchone()
        if place is None:
            raise LookupError(f"no episode {number} in {self.directory}")
        name, offset = place
        try:
            return RecordReader(self.directory / name).at(offset)
        except UnreadableRecord as error:
            raise LookupError(f"episode {number} in {self.directory / name} cannot be read: {error}") from error


def _head(path: Path) -> str:
    """What tells this file from another of its name; empty while its first line is not whole."""
    with path.open("rb") as file:
        line = file.readline(65_536)
    return hashlib.sha256(line).hexdigest() if line.endswith(b"\n") or len(line) == 65_536 else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
