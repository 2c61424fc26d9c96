"""Session registry in Redis. The only module that imports redis; every key name is made here.

| key | type | life | content |
| --- | --- | --- | --- |
| `deepeyes:sandbox:session:<id>` | hash | lease | `server`, `created_s` (Unix time), `cells` |
| `deepeyes:sandbox:counters` | hash | for ever | `sessions_created`, `cells_run`, `cells_<status>` |

Nothing here is on the path of a running cell: a registry write that fails is counted and reported by `/health`.
"""

from __future__ import annotations

import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

_PREFIX = "deepeyes:sandbox"


class StoreUnavailable(ConnectionError):
    """Redis did not answer."""


def _session_key(session_id: str) -> str:
    return f"{_PREFIX}:session:{session_id}"


class SessionStore:
    """Who holds which session, and until when."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._redis: Redis = Redis.from_url(redis_url, decode_responses=True, socket_timeout=2.0, socket_connect_timeout=2.0)

    async def ping(self) -> None:
        """Raises:
        StoreUnavailable: Redis does not answer.
        """
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(
                f"no Redis at {self._url} ({error}); start one with `redis-server --port 6379` or set REDIS_URL"
            ) from error

    async def register(self, session_id: str, *, server: str, lease_s: float) -> None:
        """Write a new session down.

        Raises:
            StoreUnavailable: Redis does not answer; the caller must not create the session.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                key = _session_key(session_id)
                pipe.hset(key, mapping={"server": server, "created_s": f"{time.time():.3f}", "cells": 0})
                pipe.expire(key, max(1, int(lease_s)))
                pipe.hincrby(f"{_PREFIX}:counters", "sessions_created", 1)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"no Redis at {self._url}: {error}") from error

    async def record_cell(self, session_id: str, *, status: str, lease_s: float) -> None:
        """Count a finished cell and renew the lease.

        Raises:
            StoreUnavailable: Redis does not answer; the cell's result stands all the same.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                key = _session_key(session_id)
                pipe.hincrby(key, "cells", 1)
                pipe.expire(key, max(1, int(lease_s)))
                pipe.hincrby(f"{_PREFIX}:counters", "cells_run", 1)
                pipe.hincrby(f"{_PREFIX}:counters", f"cells_{status}", 1)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"no Redis at {self._url}: {error}") from error

    async def forget(self, session_id: str) -> None:
        """Remove a closed session; with Redis down its lease removes it later."""
        try:
            await self._redis.delete(_session_key(session_id))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"no Redis at {self._url}: {error}") from error

    async def owner(self, session_id: str) -> str | None:
        """The server that holds the session, or None."""
        try:
            owner = await self._redis.hget(_session_key(session_id), "server")
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"no Redis at {self._url}: {error}") from error
        return None if owner is None else str(owner)

    async def counters(self) -> dict[str, int]:
        """Totals over all servers of this Redis."""
        try:
            values = await self._redis.hgetall(f"{_PREFIX}:counters")
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"no Redis at {self._url}: {error}") from error
        return {str(name): int(value) for name, value in values.items()}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
