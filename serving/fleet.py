"""Several model servers as one, underneath any HTTP client: least loaded first, fewer requests at once while they say that
it is too much. The rules are those of balancing.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from serving.balancing import NoServer, Servers

_GONE_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class Fleet(httpx.AsyncBaseTransport):
    """Sends each request to one of the servers, whatever its URL says before `/chat` or `/models`.

    Args:
        base_urls: With `/v1`.
        max_in_flight: Requests at once over all servers.
        inner: What really sends; it is closed with the fleet.
        patience_s: How long a request waits while no server answers anybody.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        max_in_flight: int,
        inner: httpx.AsyncBaseTransport,
        patience_s: float = 30.0,
    ) -> None:
        self._base_path = httpx.URL(base_urls[0]).path.rstrip("/")
        self._servers = Servers(base_urls, max_in_flight=max_in_flight, what="model server")
        self._patience_s = patience_s
        self._inner = inner
        self.down = ""
        """Why no server is left; going on is pointless then."""

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return self._servers.limit

    @property
    def all_broken(self) -> bool:
        """Whether every server failed several times in a row, so that requests wait."""
        return self._servers.all_broken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises:
        httpx.ConnectError: No server has answered for too long.
        """
        path = request.url.path.removeprefix(self._base_path)
        try:
            async with self._servers.slot(patience_s=self._patience_s) as server:
                request.url = httpx.URL(f"{server.url}{path}")
                request.headers["host"] = request.url.netloc.decode()
                try:
                    response = await self._inner.handle_async_request(request)
                    content = await response.aread()
                except httpx.TransportError as error:
                    self._servers.did_not_answer(server, error)
                    raise
                if self._servers.answered(server, response.status_code):
                    self.down = ""
        except NoServer as error:
            self.down = str(error)
            raise httpx.ConnectError(self.down, request=request) from error
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _GONE_HEADERS]
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
