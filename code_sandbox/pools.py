"""Many connections to one server, at a cost that does not grow with their number."""

from __future__ import annotations

import itertools

import httpx

_LEAST_POOLS, _CONNECTIONS = 16, 8


class Pools(httpx.AsyncBaseTransport):
    """Several small connection pools, used in turn.

    A pool of httpcore compares each of its connections with each other one at every request: with 64 of them that took
    more time than all else that a request needs (httpcore 1.0, `_assign_requests_to_connections`).

    Args:
        uds: Path of a Unix socket to connect to.
        max_in_flight: Requests at once; a pool is made for every eight of them, and 16 at least.
    """

    def __init__(self, *, uds: str | None = None, max_in_flight: int = _LEAST_POOLS * _CONNECTIONS) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        verify = httpx.create_ssl_context()  # one for all: reading the certificates takes 20 ms
        count = max(_LEAST_POOLS, -(-max_in_flight // _CONNECTIONS))
        self._pools = [httpx.AsyncHTTPTransport(verify=verify, limits=limits, uds=uds) for _ in range(count)]
        self._turns = itertools.cycle(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send through the next pool."""
        return await next(self._turns).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()
