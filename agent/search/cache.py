"""What the nodes of a run share, in Redis: answers, and how much was spent.

The cache is a convenience: while Redis is away it is passed over, and said so once. The account is not: without it a budget
could be spent twice, so then nothing is asked.
"""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

from agent.errors import ToolUnavailable
from agent.lines import too_many_values
from agent.search.recording import AskedQuestion, Response
from code_sandbox.redaction import checked_url, redacted, secrets_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PREFIX = "deepeyes:search:"
_MOST_BYTES = 32 << 20
"""Of an answer with its images; a larger one is never held whole."""
_SPEND = """
local calls = tonumber(redis.call('HGET', KEYS[1], 'calls') or '0') + tonumber(ARGV[1])
local usd = tonumber(redis.call('HGET', KEYS[1], 'usd') or '0') + tonumber(ARGV[2])
if ARGV[3] ~= '' and calls > tonumber(ARGV[3]) then return 0 end
if ARGV[4] ~= '' and usd > tonumber(ARGV[4]) + 1e-9 then return 0 end
redis.call('HSET', KEYS[1], 'calls', calls, 'usd', string.format('%.9f', usd))
return 1
"""
_log = logging.getLogger(__name__)


class SharedCache:
    """Answers by key, for a while; and the account of one run.

    Args:
        url: Such as redis://host:6379/0.
        run: Name of the account. Runs of one name share a budget.
        ttl_s: How long an answer is kept, in seconds.
    """

    def __init__(self, url: str, *, run: str, ttl_s: float) -> None:
        from redis.asyncio import Redis

        self._secrets = secrets_of(checked_url(url, "a Redis"))
        self._redis: Redis = Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)
        self._account = f"{_PREFIX}spent:{run}"
        self._ttl_ms = int(ttl_s * 1000)
        self._away = False

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def get(self, question: AskedQuestion) -> Response | None:
        """A shared answer; a broken one counts as none."""
        try:
            found = await self._redis.getrange(_PREFIX + question.key, 0, _MOST_BYTES)
            self._away = False
        except self._errors() as error:
            self._say_away(error)
            return None
        if not found:
            return None
        assert isinstance(found, bytes)
        if len(found) > _MOST_BYTES or too_many_values(found):
            _log.warning("the shared answer to %.100r is too large and is passed over", question.query)
            return None
        try:
            saved = json.loads(found)
            return Response(saved["content"], {name: base64.b64decode(data) for name, data in saved["blobs"].items()})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    async def put(self, question: AskedQuestion, response: Response) -> None:
        """Share an answer."""
        blobs = {name: base64.b64encode(data).decode() for name, data in response.blobs.items()}
        try:
            value = json.dumps({"content": response.content, "blobs": blobs})
            await self._redis.set(_PREFIX + question.key, value, px=self._ttl_ms)
        except self._errors() as error:
            self._say_away(error)

    async def spend(self, calls: int, usd: float, *, max_calls: int | None, max_usd: float | None) -> bool:
        """See `agent.search.web.Ledger`."""
        limits = ["" if limit is None else str(limit) for limit in (max_calls, max_usd)]
        return bool(await self._asked(self._redis.eval(_SPEND, 1, self._account, str(calls), repr(usd), *limits)))

    async def spent(self) -> tuple[int, float]:
        """See `agent.search.web.Ledger`."""
        calls, usd = await self._asked(self._redis.hmget(self._account, ["calls", "usd"]))
        return int(calls or 0), float(usd or 0.0)

    async def _asked(self, request: Any) -> Any:
        try:
            return await request
        except self._errors() as error:
            said = redacted(str(error), *self._secrets)
            raise ToolUnavailable(f"the account of this run's searches is out of reach: Redis: {said}") from error

    @staticmethod
    def _errors() -> tuple[type[Exception], ...]:
        from redis.exceptions import RedisError

        return (RedisError, OSError)

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            _log.warning("search goes on without the shared cache: Redis: %s", redacted(str(error), *self._secrets))
        self._away = True
