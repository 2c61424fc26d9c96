"""An index over a run's records: 100,000 episodes are filtered and sorted without being read again.

It is a SQLite file beside the records (in the cache folder of the user where that cannot be written), holds where each line
begins, and is brought up to date by reading what was appended since: a run can be watched while it trains.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.trajectory import parse_line, record_files

VERSION = 2
FACETS = ("step", "kind", "stop_reason", "tool")
_SCHEMA = """
CREATE TABLE meta (version INTEGER);
CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER, head TEXT);
CREATE TABLE episodes (
  id INTEGER PRIMARY KEY, file INTEGER, offset INTEGER, length INTEGER, item_id TEXT, step INTEGER, kind TEXT,
  stop_reason TEXT, reward REAL, accuracy REAL, answer TEXT, gold TEXT, turns INTEGER, tool_calls INTEGER,
  tool_errors INTEGER, tokens INTEGER, wall_s REAL);
CREATE TABLE tools (tool TEXT, id INTEGER, PRIMARY KEY (tool, id)) WITHOUT ROWID;
CREATE INDEX by_step ON episodes (step);
CREATE INDEX by_kind ON episodes (kind);
CREATE INDEX by_stop ON episodes (stop_reason);
CREATE INDEX by_reward ON episodes (reward);
CREATE INDEX by_item ON episodes (item_id);
"""
_COLUMNS = (
    "id", "item_id", "step", "kind", "stop_reason", "reward", "accuracy", "answer", "gold", "turns", "tool_calls",
    "tool_errors", "tokens", "wall_s",
)  # fmt: skip
_SORTS = {name: name for name in _COLUMNS}
_COMMIT_EVERY = 5_000
_SHOWN_CHARS = 200


def find_records(directory: Path) -> Path:
    """The folder with `episodes.jsonl` or `episodes-*.jsonl`: this one, or the only one below it.

    Raises:
        FileNotFoundError: None.
        ValueError: Several; the message lists them.
    """
    if record_files(directory):
        return directory
    found = sorted({path.parent for path in directory.rglob("episodes*.jsonl") if path in record_files(path.parent)})
    if not found:
        raise FileNotFoundError(f"no episodes.jsonl in {directory} or below it")
    if len(found) > 1:
        raise ValueError(f"{directory} holds several runs; give one of {', '.join(map(str, found))}")
    return found[0]


class EpisodeIndex:
    """One run.

    Args:
        directory: With its episodes, in one file or in one for each process that wrote them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._scored_at = 0
        self._db = self._open()
        self.refresh()

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
        db.execute("INSERT INTO meta VALUES (?)", (VERSION,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def refresh(self) -> int:
        """Index what was appended. Returns the number of episodes."""
        with self._lock:
            if not self._fits(self._db):
                self._empty(self._db)  # a resumed run has forgotten the steps that it makes again
                self._scored_at = 0
            for path in record_files(self.directory):
                self._grow(path)
            self._take_scores()
            (count,) = self._db.execute("SELECT count(*) FROM episodes").fetchone()
        return int(count)

    def _grow(self, path: Path) -> None:
        found = self._db.execute("SELECT id, size FROM files WHERE name = ?", (path.name,)).fetchone()
        if found is None:
            if not _head(path):
                return  # its first line is still being written
            insert = "INSERT INTO files VALUES (NULL, ?, 0, ?)"
            found = self._db.execute(insert, (path.name, _head(path))).lastrowid, 0
        number, position = found
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > position:
                file.seek(position)
                self._read(file, path, number, position)

    def _take_scores(self) -> None:
        """An evaluation's grades lie beside its episodes, and are made anew at any time."""
        path = self.directory / "scores.jsonl"
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return
        if stamp == self._scored_at:
            return
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "UPDATE episodes SET accuracy = ? WHERE item_id = ?", [(_number(row["correct"]), row["item_id"]) for row in rows]
        )
        self._db.execute("COMMIT")
        self._scored_at = stamp

    def _read(self, lines: Any, path: Path, file: int, position: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # still being written
            row = parse_line(line, path)
            if row is not None:
                self._add(row, file, position, len(line))
            position += len(line)
            if number % _COMMIT_EVERY == 0:
                self._db.execute("UPDATE files SET size = ? WHERE id = ?", (position, file))
                self._db.execute("COMMIT")
                self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("UPDATE files SET size = ? WHERE id = ?", (position, file))
        self._db.execute("COMMIT")

    def _add(self, row: Mapping[str, Any], file: int, offset: int, length: int) -> None:
        facts = row.get("facts") or {}
        called = [turn["action"]["tool"] for turn in row["turns"] if "tool" in turn["action"]]
        accuracy = facts.get("accuracy", facts.get("correct"))
        cursor = self._db.execute(
            "INSERT INTO episodes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file, offset, length, str(facts.get("item_id") or row["episode_id"]), facts.get("step"),
                str(facts.get("kind") or facts.get("category") or facts.get("data_source") or ""), row["stop_reason"],
                _number(facts.get("reward")), _number(accuracy), str(row["answer"] or "")[:_SHOWN_CHARS],
                str(facts.get("gold") or "")[:_SHOWN_CHARS], len(row["turns"]), len(called),
                sum(bool(turn["tool_error"]) for turn in row["turns"]), sum(turn["num_tokens"] for turn in row["turns"]),
                row.get("wall_s", 0.0),
            ),
        )  # fmt: skip
        self._db.executemany("INSERT INTO tools VALUES (?, ?)", [(tool, cursor.lastrowid) for tool in set(called)])

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        """For each filter its values and how many episodes have them."""
        with self._lock:
            found = {
                name: self._db.execute(f"SELECT {name}, count(*) FROM episodes GROUP BY 1 ORDER BY 1").fetchall()  # noqa: S608
                for name in ("step", "kind", "stop_reason")
            }
            found["tool"] = self._db.execute("SELECT tool, count(*) FROM tools GROUP BY 1 ORDER BY 1").fetchall()
        return found

    def rows(
        self, filters: Mapping[str, str], *, sort: str = "id", descending: bool = False, offset: int = 0, limit: int = 100
    ) -> tuple[int, list[dict[str, Any]]]:
        """One page of the list.

        Args:
            filters: `step`, `kind`, `stop_reason`, `tool` (`none`: no call at all), `min_reward`, `max_reward`, `text` (in
                item, answer or gold).
            sort: A column.
            descending: Largest first.
            offset: Rows before the page.
            limit: Rows of the page.

        Returns:
            (number of episodes that fit, rows).

        Raises:
            ValueError: An unknown column.
        """
        if sort not in _SORTS:
            raise ValueError(f"no column {sort!r}; there are: {', '.join(_SORTS)}")
        where, values = _where(filters)
        order = f"{_SORTS[sort]} IS NULL, {_SORTS[sort]} {'DESC' if descending else 'ASC'}, id"
        with self._lock:
            (total,) = self._db.execute(f"SELECT count(*) FROM episodes WHERE {where}", values).fetchone()  # noqa: S608
            select = f"SELECT {', '.join(_COLUMNS)} FROM episodes WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
            found = self._db.execute(select, [*values, limit, offset]).fetchall()
        return int(total), [dict(zip(_COLUMNS, row, strict=True)) for row in found]

    def last_of_items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each item's last episode, as a row of the list, by item; of a training run one of its last step."""
        ranked = "SELECT *, row_number() OVER (PARTITION BY item_id ORDER BY step DESC, id DESC) AS rank FROM episodes"
        select = f"SELECT {', '.join(_COLUMNS)} FROM ({ranked}) WHERE rank = 1"  # noqa: S608
        with self._lock:
            found = self._db.execute(select + " ORDER BY item_id").fetchall()
        for row in found:
            yield row[1], dict(zip(_COLUMNS, row, strict=True))

    def record(self, number: int) -> dict[str, Any]:
        """The parsed line of an episode.

        Raises:
            LookupError: No such episode.
        """
        with self._lock:
            select = "SELECT name, offset, length FROM episodes JOIN files ON files.id = file WHERE episodes.id = ?"
            place = self._db.execute(select, (number,)).fetchone()
        if place is None:
            raise LookupError(f"no episode {number} in {self.directory}")
        name, offset, length = place
        with (self.directory / name).open("rb") as file:
            file.seek(offset)
            row: dict[str, Any] = json.loads(file.read(length))
        return row


def _head(path: Path) -> str:
    """What tells this file from another of its name; empty while its first line is not whole."""
    with path.open("rb") as file:
        line = file.readline(65_536)
    return hashlib.sha256(line).hexdigest() if line.endswith(b"\n") or len(line) == 65_536 else ""


def _where(filters: Mapping[str, str]) -> tuple[str, list[Any]]:
    clauses, values = ["1"], list[Any]()
    for name in ("step", "kind", "stop_reason"):
        if name in filters:
            clauses.append(f"{name} IS ?")
            values.append(int(filters[name]) if name == "step" and filters[name].lstrip("-").isdigit() else filters[name])
    if filters.get("tool") == "none":
        clauses.append("tool_calls = 0")
    elif "tool" in filters:
        clauses.append("id IN (SELECT id FROM tools WHERE tool = ?)")
        values.append(filters["tool"])
    for name, sign in (("min_reward", ">="), ("max_reward", "<=")):
        if name in filters:
            clauses.append(f"reward {sign} ?")
            values.append(float(filters[name]))
    if filters.get("text"):
        clauses.append("(item_id LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\' OR gold LIKE ? ESCAPE '\\')")
        pattern = "".join("\\" + letter if letter in "%_\\" else letter for letter in filters["text"])
        values += [f"%{pattern}%"] * 3
    return " AND ".join(clauses), values


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
