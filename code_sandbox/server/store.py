"""What must outlive a server process, in Redis. The only module that imports redis; every key name is made here.

    deepeyes:sandbox:session:<id>       hash, for the lease: `server` (instance), `created_s` (Unix time), `images` (JSON
                                        list of sha256), `base` (how many cells ran before the journal begins)
    deepeyes:sandbox:journal:<id>       list, for the lease: one JSON object a cell, the fields of `JournalEntry`
    deepeyes:sandbox:server:<instance>  string, 6 s and renewed: the server's name; gone when it is dead
    deepeyes:sandbox:counters           hash: `sessions_created`, `sessions_moved`, `cells_run`, `cells_<status>`

No pickle, no image, no result. A running cell waits for nothing here: the journal is written behind it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from code_sandbox.errors import StoreUnavailable
from code_sandbox.wire import DEFAULT_MAX_CHARS, MAX_IMAGES

_PREFIX = "deepeyes:sandbox"
_COUNTERS = f"{_PREFIX}:counters"
HEARTBEAT_S = 2.0
_DEAD_AFTER_S = 6

# A server that was thought dead must not write into what another one has taken over, and a cell whose predecessor was
# lost with Redis must not take its place. Returns 1: written, 0: the session is another server's, -1: out of order.
_APPEND = """
if redis.call('HGET', KEYS[1], 'server') ~= ARGV[1] then return 0 end
local base = tonumber(redis.call('HGET', KEYS[1], 'base') or '0')
if base + redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return -1 end
if ARGV[4] == 'reset' then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'base', tonumber(ARGV[2]) + 1)
else
  redis.call('RPUSH', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_CLAIM = """
if redis.call('HGET', KEYS[1], 'server') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'server', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One finished cell, with what is needed to run it again and to see whether it did the same."""

    code: str
    status: str
    digest: str
    timeout_s: float
    max_pixels: int
    image_format: str
    max_images: int = MAX_IMAGES
    max_chars: int = DEFAULT_MAX_CHARS


@dataclass(frozen=True, slots=True)
class Registered:
    """A session as Redis knows it."""

    server: str
    images: tuple[str, ...]
    base: int
    """Cells before the journal: the state was lost in the last of them."""
    journal: tuple[JournalEntry, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell to be written down."""

    session_id: str
    cell: int
    status: str
    entry: JournalEntry | None
    """None: the session's state was lost, and its journal begins anew."""


def _session_key(session_id: str) -> str:
    return f"{_PREFIX}:session:{session_id}"


def _journal_key(session_id: str) -> str:
    return f"{_PREFIX}:journal:{session_id}"


def _server_key(instance: str) -> str:
    return f"{_PREFIX}:server:{instance}"


def _without_password(url: str) -> str:
    """The address as it may be shown; an error reaches callers and logs."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if found and "@" in rest else url


class SessionStore:
    """Who holds which session, until when, and what it has run."""

    def __init__(self, redis_url: str) -> None:
        self._url = _without_password(redis_url)
        self._redis: Redis = Redis.from_url(redis_url, decode_responses=True, socket_timeout=2.0, socket_connect_timeout=2.0)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"no Redis at {self._url} ({error}); start one with `redis-server --port 6379` or set REDIS_URL"
        )

    async def ping(self) -> None:
        """Raises:
        StoreUnavailable: Redis does not answer. So do all other methods.
        """
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def beat(self, instance: str, name: str) -> None:
        """Say that a server lives."""
        try:
            await self._redis.set(_server_key(instance), name, ex=_DEAD_AFTER_S)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def leave(self, instance: str) -> None:
        """Say that a server has ended, so that its sessions can move at once."""
        try:
            await self._redis.delete(_server_key(instance))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def alive(self, instance: str) -> str | None:
        """The name of the server, None if it is dead."""
        try:
            name = await self._redis.get(_server_key(instance))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return None if name is None else str(name)

    async def register(self, session_id: str, *, server: str, images: Sequence[str], lease_s: float) -> None:
        """Write a new session down; one that could not be written must not be created."""
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                key = _session_key(session_id)
                fields: Any = {"server": server, "created_s": f"{time.time():.3f}"}
                pipe.delete(_journal_key(session_id))
                pipe.hset(key, mapping=fields | {"images": json.dumps(list(images)), "base": 0})
                pipe.expire(key, max(1, int(lease_s)))
                pipe.hincrby(_COUNTERS, "sessions_created", 1)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def record(self, cells: Sequence[Finished], *, server: str, lease_s: float) -> list[int]:
        """Append finished cells to their journals and renew the leases.

        Returns:
            For each: 1 written, 0 the session belongs to another server by now, -1 an earlier cell is missing.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for cell in cells:
                    body = "reset" if cell.entry is None else json.dumps(asdict(cell.entry))
                    keys = (_session_key(cell.session_id), _journal_key(cell.session_id))
                    pipe.eval(_APPEND, 2, *keys, server, cell.cell, max(1, int(lease_s)), body)
                for cell in cells:
                    pipe.hincrby(_COUNTERS, "cells_run", 1)
                    pipe.hincrby(_COUNTERS, f"cells_{cell.status}", 1)
                replies = await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return [int(reply) for reply in replies[: len(cells)]]

    async def load(self, session_id: str) -> Registered | None:
        """A session with its journal; None if nobody knows it."""
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(_session_key(session_id))
                pipe.lrange(_journal_key(session_id), 0, -1)
                fields, entries = await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        if not fields:
            return None
        journal = tuple(JournalEntry(**json.loads(entry)) for entry in entries)
        return Registered(fields["server"], tuple(json.loads(fields["images"])), int(fields["base"]), journal)

    async def claim(self, session_id: str, *, held_by: str, server: str) -> bool:
        """Take a session over from a dead server; False if somebody else was quicker."""
        try:
            return bool(await self._redis.eval(_CLAIM, 1, _session_key(session_id), held_by, server))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def trim(self, session_id: str, *, cells: int) -> None:
        """Keep the first `cells` entries of a journal: those that a moved session has run again."""
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                if cells:
                    pipe.ltrim(_journal_key(session_id), 0, cells - 1)
                else:
                    pipe.delete(_journal_key(session_id))
                pipe.hincrby(_COUNTERS, "sessions_moved", 1)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def forget(self, session_id: str) -> None:
        """Remove a closed session; with Redis down its lease removes it later."""
        try:
            await self._redis.delete(_session_key(session_id), _journal_key(session_id))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def counters(self) -> dict[str, int]:
        """Totals over all servers of this Redis."""
        try:
            values = await self._redis.hgetall(_COUNTERS)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return {str(name): int(value) for name, value in values.items()}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
