"""An HTTP wire made of a list: answers in order, remembers the requests."""

from __future__ import annotations

import httpx


def queued_transport(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """Returns: the transport, and the requests it has seen so far. An exception among the answers is raised."""
    queue, seen = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), seen
