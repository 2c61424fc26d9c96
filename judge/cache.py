"""Verdicts that were given before, by content: equal question, gold, answer, prompt, model and parameters.

A path is a SQLite file, for one machine; `redis://…` is shared by nodes. A cache that cannot be read or written is passed
over: it saves money, it decides nothing.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from code_sandbox.redaction import checked_url, redacted, secrets_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TTL_S = 90 * 86400
_MOST_BYTES = 1 << 20
"""Of a verdict with the reply that it was read in; a larger one is none of ours."""
_log = logging.getLogger(__name__)


class VerdictCache(Protocol):
    """JSON by key."""

    async def get(self, key: str) -> dict[str, Any] | None: ...

    async def put(self, key: str, value: dict[str, Any]) -> None: ...

    async def aclose(self) -> None: ...


def open_cache(where: str | None) -> VerdictCache | None:
    """A cache by its path or URL; None for none."""
    if not where:
        return None
    return RedisCache(where) if where.startswith(("redis://", "rediss://", "unix://")) else SqliteCache(Path(where))


class SqliteCache:
    """One file; several processes may use it at once.

    Raises:
        ValueError: The file is something else.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=10.0, isolation_level=None)
        try:
            # The file may be somebody else's: SQLite refuses a larger value before it reads it.
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(f"{path} is no verdict cache ({error}); give another file as judge.cache") from error

    async def get(self, key: str) -> dict[str, Any] | None:
        """A hit takes some 20 microseconds, so it is read on the event loop."""
        try:
            with self._lock:
                row = self._db.execute("SELECT value FROM verdicts WHERE key = ?", (key,)).fetchone()
            return None if row is None else _parsed(row[0])
        except sqlite3.Error as error:
            _log.warning("the verdict cache was passed over (%.16s): %s", key, error)
            return None

    async def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a verdict."""
        try:
            with self._lock:
                self._db.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False))
                )
        except (sqlite3.Error, UnicodeEncodeError) as error:
            _log.warning("a verdict was not kept: %s", error)

    async def aclose(self) -> None:
        """Close the file."""
        self._db.close()


class RedisCache:
    """Shared by nodes; kept for 90 days."""

    def __init__(self, url: str) -> None:
        from redis.asyncio import Redis

        self._secrets = secrets_of(checked_url(url, "a Redis"))
        self._redis: Redis = Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)

    async def get(self, key: str) -> dict[str, Any] | None:
        """A verdict, or None; also if Redis is away."""
        from redis.exceptions import RedisError

        try:
            found = await self._redis.getrange(f"deepeyes:verdict:{key}", 0, _MOST_BYTES)
        except (RedisError, OSError) as error:
            _log.warning("the verdict cache was passed over: Redis: %s", redacted(str(error), *self._secrets))
            return None
        if len(found) > _MOST_BYTES:
            _log.warning("the verdict cache was passed over (%.16s): the entry is too large", key)
            return None
        return _parsed(found)

    async def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a verdict."""
        from redis.exceptions import RedisError

        try:
            await self._redis.set(f"deepeyes:verdict:{key}", json.dumps(value), ex=_TTL_S)
        except (RedisError, OSError) as error:
            _log.warning("a verdict was not kept: Redis: %s", redacted(str(error), *self._secrets))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
