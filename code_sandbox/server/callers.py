"""Who may call, and how much of a request is taken in before it is known to be one.

A page in a browser of this machine can send requests to loopback, and by DNS rebinding read the answers. So on loopback a
request names the server as an address or as `localhost`, comes from no page of another origin, and says that its body is
what our clients send: a browser asks first before it sends that, and gets no answer. Beyond loopback there is a token, which
no page knows.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from code_sandbox.errors import BodyTooLarge, BodyTooSlow, CallerGone, TooManySessions
from code_sandbox.host_names import answers_to
from code_sandbox.wire import JSON, MSGPACK

_OPEN_ROUTES = ("/health", "/metrics")
_BODY_WITHIN_S = 60.0
_HEAD_BYTES = 64 << 10
_HEAD_WITHIN_S = 10.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TAKEN_IN_BYTES = 1 << 30
_MANY = 20_000
"""Values of a request in JSON or msgpack. A session has 64 images, and nothing else is a list."""
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class CallerCheck:
    """ASGI middleware that answers those itself who may not call.

    Args:
        app: What the others reach.
        token: That callers must send; empty if none is wanted.
        hosts: Names under which the server is reached, besides addresses and localhost; `*` for any.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str]) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode() if token else b""
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let pass."""
        if scope["type"] == "http" and (refused := self._refused(scope)) is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not answers_to(host, self._hosts):
            message = f"this server is not called {host[:200]!r}; start it with --allowed-host and the name that you use"
            return _refusal(421, "WrongHost", message)
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc != host) or headers.get("sec-fetch-site") in (
            "cross-site",
            "same-site",
        ):
            return _refusal(403, "ForeignOrigin", f"a page of {(origin or 'another site')[:200]!r} may not call a sandbox")
        given = headers.get("authorization", "").encode()
        if self._token and scope["path"] not in _OPEN_ROUTES and not hmac.compare_digest(given, self._token):
            return _refusal(
                401,
                "Unauthorized",
                "this server wants `Authorization: Bearer …`; set CODE_SANDBOX_TOKEN to the token it was started with",
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind not in (JSON, MSGPACK):
            return _refusal(415, "WrongContentType", f"the body is {kind[:100]!r}; expected {JSON} or {MSGPACK}")
        return None


def _refusal(status: int, error: str, message: str) -> JSONResponse:
    return JSONResponse({"error": error, "message": message}, status_code=status, headers={"Connection": "close"})


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests' first part must be small and come soon; uvicorn itself waits for ever and keeps all of it."""

    _head_bytes = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time runs from here, and from the first byte of each later request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to no request yet."""
        before = self.cycle
        if before is None or before.response_complete:
            self._head_bytes += len(data)
            self._wait()
        super().data_received(data)
        if self.cycle is not before:
            self._head_bytes = 0
            self._stop_waiting()
        elif self._head_bytes > _HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_HEAD_WITHIN_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Bodies:
    """Reads bodies, of all requests together no more than there is room for."""

    def __init__(self) -> None:
        self._left = _TAKEN_IN_BYTES

    async def read(self, request: Request, limit: int) -> bytes:
        """One body.

        Raises:
            BodyTooLarge, BodyTooSlow, CallerGone: As they say.
            TooManySessions: Others' bodies take all the room there is.
        """
        parts, size = [], 0
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                async for part in request.stream():
                    size += len(part)
                    self._left -= len(part)
                    if size > limit:
                        raise BodyTooLarge(f"the body has more than {limit:,} bytes")
                    if self._left < 0:
                        raise TooManySessions("too many requests are being read; ask again")
                    parts.append(part)
        except ClientDisconnect as error:
            raise CallerGone("the caller hung up before its request was complete") from error
        except TimeoutError as error:
            raise BodyTooSlow(f"the body did not arrive within {_BODY_WITHIN_S:g} s") from error
        finally:
            self._left += size
        return b"".join(parts)


def has_too_many_values(body: bytes) -> bool:
    """Whether JSON would unpack to more values than any request of ours has. Linear in its length, and decodes nothing."""
    outside = _TEXT.sub(b"", body)
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") > _MANY
