"""Who may use the page: on loopback whoever calls this machine by a name of its own, beyond it whoever has the token."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from code_sandbox.host_names import answers_to

BODIES = ("application/json", "application/octet-stream")
"""A page of another origin cannot send these without asking first, and it gets no answer."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; object-src 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""With trusted types nothing that is a text can become markup or code, whatever a model or a record says."""


class PageAccess:
    """ASGI middleware that answers those itself who may not come in, and forbids the page to load anything from elsewhere.

    Args:
        app: What the others reach.
        token: That they must bring in the link, once; a cookie then stands for it. Empty if none is wanted.
        hosts: Names under which the page is reached, besides addresses and localhost; `*` for any.
        cookie: Its name, which no other server of this host should use: browsers give cookies to all ports.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str], cookie: str) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let pass."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in present)]
            await send(message)

        answer = self._answer(scope)
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _answer(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, method = headers.get("host", ""), scope["method"]
        if not answers_to(host, self._hosts):
            return _refusal(421, f"this page is not called {host[:200]!r}; start it with --allowed-host and that name")
        origin = headers.get("origin")
        # Whoever follows a link to the page comes from another site, and may.
        arrives = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") and not arrives
        if foreign or (origin is not None and urlsplit(origin).netloc != host):
            return _refusal(403, f"a page of {(origin or 'another site')[:200]!r} may not use this one")
        if self._token and (answer := self._without_token(scope, headers)) is not None:
            return answer
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method not in ("GET", "HEAD") and kind not in BODIES:
            return _refusal(415, f"the body is {kind[:100]!r}; expected {' or '.join(BODIES)}")
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = dict(query).get("token")
        if given is not None and scope["method"] == "GET" and self._is_token(given):
            left = urlencode([pair for pair in query if pair[0] != "token"])
            # The token stays in no address that is copied or shown.
            answer = RedirectResponse(scope["path"] + (f"?{left}" if left else ""), status_code=303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax", path="/")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(_cookie(headers, self._cookie)) or self._is_token(bearer):
            return None
        text = "This page wants its token: open the link that its server has printed.\n"
        return PlainTextResponse(text, status_code=401, headers={"Connection": "close"})

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _refusal(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close"})
