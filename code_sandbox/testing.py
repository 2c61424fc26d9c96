"""A sandbox without a server, for tests of what uses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from code_sandbox.errors import SandboxUnavailable
from code_sandbox.wire import DEFAULT_TIMEOUT_S, ExecuteResult


class FakeSession:
    """Answers cells from a list; remembers what it was asked."""

    def __init__(self, results: Sequence[ExecuteResult], images: Sequence[bytes]) -> None:
        self._results = list(results)
        self.images = list(images)
        self.session_id = "fake"
        self.cells: list[str] = []
        self.closed = False

    async def execute(self, code: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, **_: Any) -> ExecuteResult:
        self.cells.append(code)
        return self._results.pop(0) if self._results else ExecuteResult(status="ok")

    async def close(self) -> None:
        self.closed = True


class FakeSandbox:
    """Opens `FakeSession`s, each answering with `results` in order."""

    def __init__(self, results: Sequence[ExecuteResult] = ()) -> None:
        self._results = results
        self.sessions: list[FakeSession] = []

    async def open(self, images: Sequence[bytes] = (), *, session_id: str | None = None) -> FakeSession:
        self.sessions.append(FakeSession(self._results, images))
        return self.sessions[-1]


class LostSandbox:
    """A sandbox that is down."""

    async def open(self, images: Sequence[bytes] = (), *, session_id: str | None = None) -> FakeSession:
        raise SandboxUnavailable("the sandbox is down")
