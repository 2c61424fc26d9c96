"""Async client of one or several sandbox servers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import msgpack
from pydantic import BaseModel

from code_sandbox.errors import SandboxError, SandboxRequestRefused, SandboxUnavailable, SessionLost
from code_sandbox.pools import Pools
from code_sandbox.redaction import checked_url, clean_key, redact_requests_log, redacted, secrets_of
from code_sandbox.wire import (
    DEFAULT_MAX_CHARS,
    DEFAULT_MAX_PIXELS,
    DEFAULT_TIMEOUT_S,
    MAX_IMAGES,
    MSGPACK,
    CreateSession,
    ExecuteRequest,
    ExecuteResult,
    Health,
    MissingBlobs,
    SessionInfo,
)

_TRANSPORT_MARGIN_S = 30.0
"""Added to what the server may take: process restart and transfer."""
_CLOSE_WAIT_S = 2.0
"""A server that cannot be reached has most likely taken its sessions with it, and a lease ends what it has not."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_CHARS = 2000
"""Of what a server says, in an error."""
_HEADERS = {"Content-Type": MSGPACK, "Accept": MSGPACK}


class _Later(Exception):
    """Nothing ran: the server is not there, or has no room. Another one may."""


class _Missing(Exception):
    """The server wants images first."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.names = names


class _Server:
    """One URL: `http://host:port`, or `unix:/path` for a server on this machine."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None, token: str) -> None:
        self.url = url
        self._secrets = (token, *secrets_of(url))
        parts = urlsplit(checked_url(url, "a sandbox"))
        if parts.scheme == "unix":
            self.is_local = True
            self._base = "http://sandbox"
            transport = transport or Pools(uds=parts.path)
        elif parts.scheme in ("http", "https") and parts.hostname:
            self.is_local = parts.hostname in _LOCAL
            self._base = url
        else:
            raise ValueError(
                f"sandbox URL {redacted(url)!r}; expected something like http://127.0.0.1:8000 or unix:/run/sandbox.sock"
            )
        headers = _HEADERS | ({"Authorization": f"Bearer {token}"} if token else {})
        redact_requests_log()
        self._http = httpx.AsyncClient(transport=transport or Pools(), headers=headers, trust_env=False)

    async def aclose(self) -> None:
        await self._http.aclose()

    def tidy(self, text: str) -> str:
        """Words about this server, or of it, without its token and its address's password."""
        return redacted(text, *self._secrets)

    async def send(
        self, method: str, path: str, body: bytes | None, *, timeout_s: float, repeatable: bool
    ) -> httpx.Response:
        """One request.

        Raises:
            _Later: It has not run.
            _Missing: It has not run; images are missing.
            SessionLost, SandboxRequestRefused, SandboxUnavailable: As they say; with the last it may have run.
        """
        try:
            response = await self._http.request(method, self._base + path, content=body, timeout=timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Later(self.tidy(f"{self.url}: cannot connect: {error}")) from error
        except httpx.TransportError as error:
            message = self.tidy(f"{self.url}: {error or type(error).__name__}")
            if repeatable:
                raise _Later(message) from error
            raise SandboxUnavailable(f"{message}; whether the cell ran is not known") from error
        if response.status_code < 300:
            return response
        fields = _fields(response)
        message = self.tidy(str(fields.get("message", response.text)))[:_MOST_CHARS]
        if fields.get("error") == "MissingBlobs":
            raise _Missing(MissingBlobs.model_validate(fields).missing)
        if response.status_code in (429, 503):
            raise _Later(self.tidy(f"{self.url}: {message}"))
        if response.status_code in (404, 409, 410):
            raise SessionLost(message)
        kind = SandboxRequestRefused if response.status_code < 500 else SandboxUnavailable
        raise kind(self.tidy(f"{self.url} answered {response.status_code}: {message}"))


class SandboxClient:
    """Opens sessions; a session stays on the server it was opened on until that one dies.

    Args:
        base_urls: One URL, or several separated by commas. Servers on this machine come first; among equals, sessions are
            spread by rendezvous hashing of their name, so that every client places a name alike.
        wait_s: How long to keep asking servers that are full or not there, in seconds.
        max_in_flight: Requests at once, so that a burst of rollouts queues here and not in sockets.
        token: Of servers that want one; by default from CODE_SANDBOX_TOKEN.
        transport: For tests.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        wait_s: float = 60.0,
        max_in_flight: int = 64,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        urls = base_urls.split(",") if isinstance(base_urls, str) else list(base_urls)
        self.base_urls = tuple(url.strip().rstrip("/") for url in urls if url.strip())
        if not self.base_urls:
            raise ValueError(f"no sandbox URL in {redacted(base_urls)!r}; expected something like http://127.0.0.1:8000")
        token = clean_key(os.environ.get("CODE_SANDBOX_TOKEN", "") if token is None else token, "CODE_SANDBOX_TOKEN")
        self._servers = [_Server(url, transport, token) for url in self.base_urls]
        self._wait_s = wait_s
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self.num_waiting = 0
        """Requests that every server has refused at least once, and that are tried again."""

    async def __aenter__(self) -> SandboxClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; sessions that are still open end with their lease."""
        for server in self._servers:
            await server.aclose()

    async def open(self, images: Sequence[bytes] = (), *, session_id: str | None = None) -> SandboxSession:
        """Open a session with `image_1` … `image_n` preloaded.

        Args:
            images: Original file bytes; sent only to a server that does not have them yet.
            session_id: Chosen freely; a random one by default.

        Raises:
            SandboxUnavailable: No server answered or had room within `wait_s` seconds.
            SandboxRequestRefused: A server could not read an image.
        """
        session_id = session_id or uuid.uuid4().hex
        files = {hashlib.sha256(data).hexdigest(): data for data in images}
        names = [hashlib.sha256(data).hexdigest() for data in images] if len(files) != len(images) else list(files)
        body = _pack(CreateSession(session_id=session_id, images=names))
        order = self._order(session_id)
        try:
            server, response = await self._ask(
                order, "POST", "/v1/sessions", body, files, timeout_s=_TRANSPORT_MARGIN_S, repeatable=True
            )
        except asyncio.CancelledError:
            await self._forget(order, session_id)
            raise
        info = SessionInfo.model_validate(msgpack.unpackb(response.content))
        return SandboxSession(self, server, session_id, files, cells=info.cells)

    async def _forget(self, servers: Sequence[_Server], session_id: str) -> None:
        """Close what a server may have begun to open for a caller that waits no longer."""

        async def close(server: _Server) -> None:
            with contextlib.suppress(_Later, SandboxError):
                await server.send(
                    "DELETE", f"/v1/sessions/{session_id}", None, timeout_s=_CLOSE_WAIT_S, repeatable=True
                )

        await asyncio.gather(*map(close, servers))

    async def health(self) -> list[Health]:
        """State of every server, in the order of `base_urls`.

        Raises:
            SandboxUnavailable: One of them does not answer.
        """
        states = []
        for server in self._servers:
            try:
                response = await server.send("GET", "/health", None, timeout_s=5.0, repeatable=True)
                states.append(Health.model_validate_json(response.content))
            except (_Later, SandboxError, ValueError) as error:
                why = str(error) if isinstance(error, _Later) else "what answers there is none"
                raise SandboxUnavailable(
                    f"no sandbox at {server.tidy(server.url)} ({why}); start one with `deepeyes sandbox serve` or set "
                    "CODE_SANDBOX_URL"
                ) from error
        return states

    async def available(self) -> list[Health]:
        """State of the servers that answer within 5 s, in the order of `base_urls`; empty if all are away."""

        async def look(server: _Server) -> Health | None:
            try:
                response = await server.send("GET", "/health", None, timeout_s=5.0, repeatable=True)
                return Health.model_validate_json(response.content)
            except (_Later, SandboxError, ValueError):
                return None

        return [state for state in await asyncio.gather(*map(look, self._servers)) if state is not None]

    def _order(self, session_id: str) -> list[_Server]:
        def rank(server: _Server) -> tuple[bool, bytes]:
            return server.is_local, hashlib.sha256(f"{server.url}\n{session_id}".encode()).digest()

        return sorted(self._servers, key=rank, reverse=True)

    async def _ask(
        self,
        servers: Sequence[_Server],
        method: str,
        path: str,
        body: bytes | None,
        files: dict[str, bytes],
        *,
        timeout_s: float,
        repeatable: bool,
        wait_s: float | None = None,
    ) -> tuple[_Server, httpx.Response]:
        """Ask one server after the other until one does it; what may have run is not asked again unless `repeatable`."""
        wait_s = self._wait_s if wait_s is None else min(wait_s, self._wait_s)
        deadline_s = asyncio.get_running_loop().time() + wait_s
        pauses = _pauses()
        while True:
            for server in servers:
                try:
                    async with self._in_flight:
                        return server, await self._send(server, method, path, body, files, timeout_s, repeatable)
                except _Later as error:
                    last = error
            pause_s = next(pauses)
            if asyncio.get_running_loop().time() + pause_s > deadline_s:
                raise SandboxUnavailable(f"no server did it within {wait_s:g} s: {last}") from last
            self.num_waiting += 1
            try:
                await asyncio.sleep(pause_s)
            finally:
                self.num_waiting -= 1

    @staticmethod
    async def _send(
        server: _Server,
        method: str,
        path: str,
        body: bytes | None,
        files: dict[str, bytes],
        timeout_s: float,
        repeatable: bool,
    ) -> httpx.Response:
        while True:
            try:
                return await server.send(method, path, body, timeout_s=timeout_s, repeatable=repeatable)
            except _Missing as missing:
                if not all(name in files for name in missing.names):
                    raise SessionLost(f"{server.url} wants images that this client does not have") from missing
                for name in missing.names:
                    await server.send("PUT", f"/v1/blobs/{name}", files[name], timeout_s=timeout_s, repeatable=True)


class SandboxSession:
    """One live session. Its cells run one after the other."""

    def __init__(
        self, client: SandboxClient, server: _Server, session_id: str, files: dict[str, bytes], *, cells: int
    ) -> None:
        self._client = client
        self._server = server
        self._files = files
        self._cells = cells
        self.session_id = session_id

    @property
    def url(self) -> str:
        """The server that has it now."""
        return self._server.url

    async def execute(
        self,
        code: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        image_format: Literal["png", "jpeg"] = "png",
        max_images: int = MAX_IMAGES,
        max_chars: int = DEFAULT_MAX_CHARS,
    ) -> ExecuteResult:
        """Run one cell. Never sent twice if it may have run: code may have effects.

        When the session's server cannot be reached any more, another one takes it over by running its earlier cells again.

        Args:
            code: Python, as the model wrote it.
            timeout_s: Wall time of the cell, without waiting.
            max_pixels: Of images that come back; larger ones are shrunk in the sandbox.
            image_format: `png` is exact, `jpeg` quicker.
            max_images: That come back; of more, only their number is said, on stderr.
            max_chars: Of stdout, stderr, result and traceback each; the rest is cut with a visible mark.

        Raises:
            SessionLost: It was closed or its lease ended, or its server died and its cells did not do the same again.
            SandboxUnavailable: No server answered; or one ended while the cell ran, and the next call may move it.
        """
        request = ExecuteRequest(
            code=code,
            timeout_s=timeout_s,
            queue_timeout_s=max(1.0, self._client._wait_s),
            max_pixels=max_pixels,
            image_format=image_format,
            max_images=max_images,
            max_chars=max_chars,
            cell=self._cells,
        )
        self._server, response = await self._client._ask(
            self._servers(),
            "POST",
            f"/v1/sessions/{self.session_id}/execute",
            _pack(request),
            self._files,
            timeout_s=timeout_s + request.queue_timeout_s + _TRANSPORT_MARGIN_S,
            repeatable=False,
        )
        self._cells += 1
        return ExecuteResult.model_validate(msgpack.unpackb(response.content))

    async def close(self) -> None:
        """Close the session; closing one that is gone is no error. Any server can forget the session of a dead one.

        Raises:
            SandboxUnavailable: No server answered; the lease ends the session.
        """
        path = f"/v1/sessions/{self.session_id}"
        await self._client._ask(
            self._servers(), "DELETE", path, None, {}, timeout_s=_TRANSPORT_MARGIN_S, repeatable=True, wait_s=_CLOSE_WAIT_S
        )

    def _servers(self) -> list[_Server]:
        """The one that has it, then those that could take it over."""
        others = (server for server in self._client._order(self.session_id) if server is not self._server)
        return [self._server, *others]


def _pack(model: BaseModel) -> bytes:
    return bytes(msgpack.packb(model.model_dump(), unicode_errors="replace"))


def _pauses() -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _fields(response: httpx.Response) -> dict[str, Any]:
    try:
        fields = response.json()
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
