"""Async client of one or several sandbox servers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import uuid
from collections.abc import Sequence
from types import TracebackType

import httpx

from code_sandbox.errors import SandboxRequestRefused, SandboxUnavailable, SessionLost
from code_sandbox.wire import CreateSession, ExecuteRequest, ExecuteResult, Health

_TRANSPORT_MARGIN_S = 30.0
"""Added to a cell's own limit: queueing, kernel restart and transfer."""


class SandboxClient:
    """Opens sessions; a session stays on the server it was opened on.

    Args:
        base_urls: One URL, or several separated by commas; sessions are spread by rendezvous hashing of their name.
        wait_s: How long to keep asking servers that are full or not there, in seconds.
        max_in_flight: Requests at once, so that a burst of rollouts queues here and not in sockets.
        transport: For tests.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        wait_s: float = 60.0,
        max_in_flight: int = 64,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        urls = base_urls.split(",") if isinstance(base_urls, str) else list(base_urls)
        self.base_urls = tuple(url.strip().rstrip("/") for url in urls if url.strip())
        if not self.base_urls:
            raise ValueError(f"no sandbox URL in {base_urls!r}; expected something like http://127.0.0.1:8000")
        self._wait_s = wait_s
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._http = httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(_TRANSPORT_MARGIN_S))

    async def __aenter__(self) -> SandboxClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; sessions that are still open end with their lease."""
        await self._http.aclose()

    async def open(self, images: Sequence[bytes] = (), *, session_id: str | None = None) -> SandboxSession:
        """Open a session with `image_1` … `image_n` preloaded.

        Args:
            images: Original file bytes.
            session_id: Chosen freely; a random one by default.

        Raises:
            SandboxUnavailable: No server answered or had room within `wait_s` seconds.
            SandboxRequestRefused: A server could not read an image.
        """
        session_id = session_id or uuid.uuid4().hex
        base_url = self._place(session_id)
        body = CreateSession(session_id=session_id, images=[_encode(data) for data in images])
        await self._request(
            "POST", f"{base_url}/v1/sessions", body.model_dump_json(), timeout_s=_TRANSPORT_MARGIN_S, repeatable=True
        )
        return SandboxSession(self, base_url, session_id)

    async def health(self) -> list[Health]:
        """State of every server, in the order of `base_urls`.

        Raises:
            SandboxUnavailable: One of them does not answer.
        """
        states = []
        for url in self.base_urls:
            try:
                response = await self._http.get(f"{url}/health", timeout=5.0)
                response.raise_for_status()
                states.append(Health.model_validate_json(response.content))
            except (httpx.HTTPError, ValueError) as error:
                raise SandboxUnavailable(
                    f"no sandbox at {url} ({error or type(error).__name__}); start one with `deepeyes sandbox serve` "
                    "or set CODE_SANDBOX_URL"
                ) from error
        return states

    def _place(self, session_id: str) -> str:
        def weight(url: str) -> bytes:
            return hashlib.sha256(f"{url}\n{session_id}".encode()).digest()

        return max(self.base_urls, key=weight)

    async def _request(
        self, method: str, url: str, body: str | None, *, timeout_s: float, repeatable: bool
    ) -> httpx.Response:
        """Send, retrying what cannot have run: refused connections and 429/503; all faults if `repeatable`."""
        deadline = asyncio.get_running_loop().time() + self._wait_s
        pause_s, last = 0.05, ""
        while True:
            try:
                async with self._in_flight:
                    response = await self._http.request(
                        method, url, content=body, headers={"Content-Type": "application/json"}, timeout=timeout_s
                    )
            except httpx.ConnectError as error:
                last = f"cannot connect: {error}"
            except httpx.TransportError as error:
                if not repeatable:
                    raise SandboxUnavailable(f"{url}: {error or type(error).__name__}") from error
                last = str(error) or type(error).__name__
            else:
                if response.status_code < 300:
                    return response
                message = _message(response)
                if response.status_code == 404:
                    raise SessionLost(message)
                if response.status_code not in (429, 503):
                    kind = SandboxRequestRefused if response.status_code < 500 else SandboxUnavailable
                    raise kind(f"{url} answered {response.status_code}: {message}")
                last = message
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise SandboxUnavailable(f"{url} gave no room within {self._wait_s:g} s: {last}")
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause_s = min(pause_s * 2, 2.0)


class SandboxSession:
    """One live kernel. Cells of a session run one after the other."""

    def __init__(self, client: SandboxClient, base_url: str, session_id: str) -> None:
        self._client = client
        self._url = f"{base_url}/v1/sessions/{session_id}"
        self.session_id = session_id

    async def execute(self, code: str, *, timeout_s: float = 60.0) -> ExecuteResult:
        """Run one cell. Never repeated by the client: code may have effects.

        Raises:
            SessionLost: The server no longer knows the session.
            SandboxUnavailable: The server did not answer.
        """
        body = ExecuteRequest(code=code, timeout_s=timeout_s).model_dump_json()
        response = await self._client._request(
            "POST", f"{self._url}/execute", body, timeout_s=timeout_s + _TRANSPORT_MARGIN_S, repeatable=False
        )
        return ExecuteResult.model_validate_json(response.content)

    async def close(self) -> None:
        """Close the session; closing one that is gone is no error.

        Raises:
            SandboxUnavailable: The server did not answer; the lease ends the session.
        """
        await self._client._request("DELETE", self._url, None, timeout_s=_TRANSPORT_MARGIN_S, repeatable=True)


def _encode(data: bytes) -> bytes:
    # Base64Bytes decodes on validation, so what is handed to the model must be encoded.
    return base64.b64encode(data)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
