"""20. Callers that guess, repeat, flood and dawdle."""

import asyncio
import contextlib
import gzip
import secrets
from collections.abc import AsyncIterator, Awaitable
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

    sent_as = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=target.url, timeout=60, headers=sent_as) as http:
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
        status = await _status(http.post("/v1/sessions/x/execute", content=b"x" * (20 << 20)), hung_up=413)
        yield await outcome("a body of 20 MB", status, (413,))
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
    for attempts_of in (_hostile_bytes, _from_a_browser):
        async for attempt in attempts_of(target):
            yield attempt


async def _status(call: Awaitable[httpx.Response], *, hung_up: int) -> int:
    """The status of an answer; a server may hang up while it is still being sent what it has refused."""
    try:
        return (await call).status_code
    except httpx.TransportError:
        return hung_up


async def _hostile_bytes(target: Target) -> AsyncIterator[AttackOutcome]:
    """Small requests that are large once they are decoded, and numbers that are none."""
    name = __name__.rsplit(".", 1)[1]
    sent_as, packed = {"content-type": "application/json"}, {"content-type": "application/msgpack"}

    async def outcome(what: str, status: int, allowed: tuple[int, ...]) -> AttackOutcome:
        wrong = "" if status in allowed else f"answered {status}"
        return AttackOutcome(name, what, 1, f"HTTP {status}", wrong or await target.harm())

    async with httpx.AsyncClient(base_url=target.url, timeout=60, headers=sent_as) as http:
        lists = b'{"images":[' + b"[]," * 5_000_000 + b"[]]}"
        for what, content, headers in (
            ("JSON", lists, sent_as),
            ("msgpack", b"\x91\xdd\x00\xf0\x00\x00" + b"\x90" * 15_728_640, packed),
        ):
            reply = await http.post("/v1/sessions", content=content, headers=headers)
            yield await outcome(f"15 MB of lists in {what}", reply.status_code, (400, 422))
        for what, value in (("no number", "NaN"), ("infinity", "1e999"), ("10^40", str(10**40))):
            statuses = {
                (await http.post("/v1/sessions/x/execute", content=f'{{"code":"1","{name}":{value}}}')).status_code
                for name in ("timeout_s", "queue_timeout_s", "max_pixels", "max_images", "max_chars", "cell")
            }
            yield await outcome(f"{what} for every number", max(statuses), (404, 422))
        headers = {f"x-{number}": "y" * 60_000 for number in range(50)}
        status = await _status(http.get("/health", headers=headers), hung_up=431)
        yield await outcome("3 MB of headers", status, (400, 431))


async def _from_a_browser(target: Target) -> AsyncIterator[AttackOutcome]:
    """What a page of another site can send without being asked whether it may, and with DNS rebinding."""
    name, body = __name__.rsplit(".", 1)[1], b'{"session_id": "page", "code": "1"}'
    as_json = {"content-type": "application/json"}
    for what, headers in (
        ("a form's text", {"content-type": "text/plain"}),
        ("a blob without a type", {}),
        ("JSON in a parameter", {"content-type": "text/plain; x=application/json"}),
        ("another site's name", as_json | {"host": "rebound.example"}),
        ("a name that begins as an address", as_json | {"host": "127.0.0.1.rebound.example"}),
        ("an origin", as_json | {"origin": "https://other.example"}),
        ("an origin that hides", as_json | {"origin": "null"}),
        ("a fetch", as_json | {"sec-fetch-site": "cross-site"}),
    ):
        statuses = set()
        async with httpx.AsyncClient(base_url=target.url, timeout=60) as http:
            for route in ("/v1/sessions", "/jupyter_sandbox", "/run_jupyter", "/clear_session"):
                statuses.add((await http.post(route, content=body, headers=headers)).status_code)
        wrong = "" if min(statuses) >= 400 and max(statuses) < 500 else f"answered {sorted(statuses)}"
        yield AttackOutcome(name, f"a page that sends {what}", 1, f"HTTP {min(statuses)}", wrong or await target.harm())


async def _slow(target: Target) -> str:
    parts = urlsplit(target.url)
    if parts.hostname is None or parts.port is None:
        return ""
    writers = []
    for _ in range(_HELD_OPEN):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n{")
        writers.append(writer)
    harm = await target.harm()
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return harm
