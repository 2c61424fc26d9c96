"""What must outlive a server process, in Redis. The only module that imports redis; every key name is made here.

    deepeyes:sandbox:session:<id>       hash, for the lease: `server` (instance), `created_s` (Unix time), `images` (JSON
                                        list of sha256), `base` (how many cells ran before the journal begins), `whole`
                                        ("0" if the journal became too long to be kept)
    deepeyes:sandbox:journal:<id>       list, for the lease: one JSON object a cell, the fields of `JournalEntry`
    deepeyes:sandbox:server:<instance>  string, 6 s and renewed: the server's name; gone when it is dead
    deepeyes:sandbox:counters           hash: `sessions_created`, `sessions_moved`, `cells_run`, `cells_<status>`

No pickle, no image, no result. A running cell waits for nothing here: the journal is written behind it. Whoever holds a
session has its journal too, and writes all of it again into a Redis that has been emptied or has forgotten some.
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
from code_sandbox.redaction import checked_url, redacted, secrets_of
from code_sandbox.wire import DEFAULT_MAX_CHARS, MAX_IMAGES

_PREFIX = "deepeyes:sandbox"
_COUNTERS = f"{_PREFIX}:counters"
HEARTBEAT_S = 2.0
_DEAD_AFTER_S = 6

# A server that was thought dead must not write into what another one has taken over, and a cell whose predecessor was
# lost with Redis must not take its place. Returns 1: written, 0: the session is another server's that lives, -1: Redis has
# forgotten it, or a part of it.
_APPEND = """
local held = redis.call('HGET', KEYS[1], 'server')
if held ~= ARGV[1] then
  if held and redis.call('EXISTS', ARGV[5] .. held) == 1 then return 0 end
  return -1
end
local whole = redis.call('HGET', KEYS[1], 'whole') ~= '0'
local written = tonumber(redis.call('HGET', KEYS[1], 'base') or '0') + redis.call('LLEN', KEYS[2])
if whole and tonumber(ARGV[2]) < written then return 1 end
if whole and tonumber(ARGV[2]) > written then return -1 end
if ARGV[4] == 'long' or (not whole and ARGV[4] ~= 'reset') then
  redis.call('HSET', KEYS[1], 'whole', '0')
elseif ARGV[4] == 'reset' then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'base', tonumber(ARGV[2]) + 1, 'whole', '1')
else
  redis.call('RPUSH', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_RESTORE = """
local held = redis.call('HGET', KEYS[1], 'server')
if held and held ~= ARGV[1] and redis.call('EXISTS', ARGV[2] .. held) == 1 then return 0 end
local base, written = tonumber(redis.call('HGET', KEYS[1], 'base') or '0'), redis.call('LLEN', KEYS[2])
if held == ARGV[1] and base + written > tonumber(ARGV[5]) + #ARGV - 7 then return 1 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'server', ARGV[1], 'images', ARGV[4], 'base', ARGV[5], 'whole', ARGV[6])
redis.call('HSETNX', KEYS[1], 'created_s', ARGV[7])
for number = 8, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[number]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
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
    whole: bool = True
    """False if cells behind the journal were not written down: too much code."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell to be written down."""

    session_id: str
    cell: int
    status: str
    entry: JournalEntry | None
    """None: the session's state was lost, and its journal begins anew."""
    too_long: bool = False
    """Not written down, and no later one either: the session cannot move until its state is new."""


def _session_key(session_id: str) -> str:
    return f"{_PREFIX}:session:{session_id}"


def _journal_key(session_id: str) -> str:
    return f"{_PREFIX}:journal:{session_id}"


def _server_key(instance: str) -> str:
    return f"{_PREFIX}:server:{instance}"


class SessionStore:
    """Who holds which session, until when, and what it has run."""

    def __init__(self, redis_url: str) -> None:
        self._url, self._secrets = redacted(checked_url(redis_url, "a Redis")), secrets_of(redis_url)
        self._redis: Redis = Redis.from_url(redis_url, decode_responses=True, socket_timeout=2.0, socket_connect_timeout=2.0)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        said = redacted(str(error), *self._secrets)
        return StoreUnavailable(
            f"no Redis at {self._url} ({said}); start one with `redis-server --port 6379` or set REDIS_URL"
        )

    async def ping(self) -> None:
        """Raises:
        StoreUnavailable: Redis does not answer. So do all other methods.
        """
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    async def beat(self, instance: str, name: str) -> bool:
        """Say that a server lives; whether Redis still knew that."""
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.exists(_server_key(instance))
                pipe.set(_server_key(instance), name, ex=_DEAD_AFTER_S)
                known, _ = await pipe.execute()
                return bool(known)
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
            For each: 1 written, 0 the session belongs to another server by now, -1 the session or an earlier cell of it is
            missing, which `restore` mends.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for cell in cells:
                    entry = "reset" if cell.entry is None else json.dumps(asdict(cell.entry))
                    body = "long" if cell.too_long else entry
                    keys = (_session_key(cell.session_id), _journal_key(cell.session_id))
                    pipe.eval(_APPEND, 2, *keys, server, cell.cell, max(1, int(lease_s)), body, _server_key(""))
                for cell in cells:
                    pipe.hincrby(_COUNTERS, "cells_run", 1)
                    pipe.hincrby(_COUNTERS, f"cells_{cell.status}", 1)
                replies = await pipe.execute()
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return [int(reply) for reply in replies[: len(cells)]]

    async def restore(self, session_id: str, session: Registered, *, lease_s: float) -> bool:
        """Write down a session that its server has and Redis has not, or not all of; False if it is another server's."""
        keys = (_session_key(session_id), _journal_key(session_id))
        known = (json.dumps(list(session.images)), session.base, int(session.whole), f"{time.time():.3f}")
        entries = [json.dumps(asdict(entry)) for entry in session.journal]
        lease = max(1, int(lease_s))
        try:
            written = await self._redis.eval(_RESTORE, 2, *keys, session.server, _server_key(""), lease, *known, *entries)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return bool(written)

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
        images = tuple(json.loads(fields["images"]))
        return Registered(fields["server"], images, int(fields["base"]), journal, whole=fields.get("whole") != "0")

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
