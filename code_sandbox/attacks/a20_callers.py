"""20. Callers that guess, repeat, flood and dawdle."""

import asyncio
import contextlib
import gzip
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from code_sandbox.attacks.suite import AttackOutcome, Target

_HELD_OPEN = 200
_MANY = 400


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Over HTTP, as somebody with access to the port."""
    name = __name__.rsplit(".", 1)[1]

    async def outcome(what: str, status: int, allowed: tuple[int, ...]) -> AttackOutcome:
        wrong = "" if status in allowed else f"answered {status}"
        return AttackOutcome(name, what, 1, f"HTTP {status}", wrong or await target.harm())

    async with httpx.AsyncClient(base_url=target.url, timeout=60) as http:
        reply = await http.post(f"/v1/sessions/{secrets.token_hex(16)}/execute", json={"code": "1"})
        yield await outcome("a guessed session", reply.status_code, (401, 404))
        if reply.status_code == 401:
            return
        own = secrets.token_hex(8)
        await http.post("/v1/sessions", json={"session_id": own})
        await http.post(f"/v1/sessions/{own}/execute", json={"code": "1", "cell": 0})
        reply = await http.post(f"/v1/sessions/{own}/execute", json={"code": "1", "cell": 0})
        yield await outcome("a repeated request", reply.status_code, (409,))
        await http.delete(f"/v1/sessions/{own}")
        reply = await http.post("/v1/sessions/x/execute", content=b"x" * (20 << 20))
        yield await outcome("a body of 20 MB", reply.status_code, (413,))
        bomb = gzip.compress(bytes(100 << 20))
        reply = await http.post("/v1/sessions/x/execute", content=bomb, headers={"content-encoding": "gzip"})
        yield await outcome("a gzip bomb", reply.status_code, (400, 404, 415, 422))
        reply = await http.post("/v1/sessions/x/execute", content=b"[" * 10**6)
        yield await outcome("nested JSON", reply.status_code, (400, 422))
        packed = {"content-type": "application/msgpack"}
        reply = await http.post("/v1/sessions/x/execute", content=b"\x91" * 10**6, headers=packed)
        yield await outcome("nested msgpack", reply.status_code, (400, 422))
        statuses = set()
        opened = []
        for _ in range(_MANY):
            opened.append(secrets.token_hex(8))
            reply = await http.post("/v1/sessions", json={"session_id": opened[-1]})
            statuses.add(reply.status_code)
            if reply.status_code == 429:
                break
        for session_id in opened:
            await http.delete(f"/v1/sessions/{session_id}")
        yield await outcome(f"up to {_MANY} sessions", max(statuses), (201, 429))
    yield AttackOutcome(name, f"{_HELD_OPEN} connections that send nothing", 1, "", await _slow(target))


async def _slow(target: Target) -> str:
    parts = urlsplit(target.url)
    if parts.hostname is None or parts.port is None:
        return ""
    writers = []
    for _ in range(_HELD_OPEN):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        writers.append(writer)
    harm = await target.harm()
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return harm
