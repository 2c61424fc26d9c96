"""What `/metrics` shows, in the format of Prometheus."""

from __future__ import annotations

import collections
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from code_sandbox.wire import ExecuteResult

_PREFIX = "deepeyes_sandbox"
MODEL_FAULTS = ("error", "timeout", "killed")
"""Statuses of cells that their own code has brought about."""
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)


class _State(Protocol):
    """What is read when somebody asks."""

    redis_ok: bool

    @property
    def zygote_restarts(self) -> int: ...

    @property
    def running_cells(self) -> int: ...

    @property
    def waiting_cells(self) -> int: ...

    def __len__(self) -> int: ...


class Metrics:
    """The metrics of one server."""

    def __init__(self, state: _State) -> None:
        self._registry = CollectorRegistry()
        self._cells = Counter(f"{_PREFIX}_cells", "Cells run", ["status"], registry=self._registry)
        self._moved = Counter(f"{_PREFIX}_moves", "Sessions taken over from dead servers", registry=self._registry)
        self._lost = Counter(
            f"{_PREFIX}_lost",
            "Lost by us: processes, most of them made again, and sessions",
            ["what"],
            registry=self._registry,
        )
        self._state = state
        self._counts: collections.Counter[str] = collections.Counter()
        self._opened = Histogram(f"{_PREFIX}_open_seconds", "Opening a session", buckets=_SECONDS, registry=self._registry)
        self._executed = Histogram(f"{_PREFIX}_cell_seconds", "Running a cell", buckets=_SECONDS, registry=self._registry)
        self._waited = Histogram(f"{_PREFIX}_wait_seconds", "Waiting for a slot", buckets=_SECONDS, registry=self._registry)
        for name, text, value in (
            ("sessions", "Live sessions", lambda: len(state)),
            ("running_cells", "Cells running now", lambda: state.running_cells),
            ("waiting_cells", "Cells waiting for a slot", lambda: state.waiting_cells),
            ("zygote_restarts", "How often the zygote was lost", lambda: state.zygote_restarts),
            ("redis_up", "Whether Redis answered last", lambda: int(state.redis_ok)),
        ):
            Gauge(f"{_PREFIX}_{name}", text, registry=self._registry).set_function(value)

    def opened(self, seconds: float) -> None:
        """Count a session."""
        self._opened.observe(seconds)

    def waited(self, seconds: float) -> None:
        """Count a cell that got its slot."""
        self._waited.observe(seconds)

    def ran(self, result: ExecuteResult) -> None:
        """Count a finished cell."""
        self._cells.labels(result.status).inc()
        self._counts[result.status] += 1
        self._executed.observe(result.execution_time_s)

    def moved(self) -> None:
        """Count a session that came here."""
        self._moved.inc()

    def lost(self, what: Literal["processes", "sessions"]) -> None:
        """Count an outage: a process that was lost and may be made again, or a session that could not be."""
        self._lost.labels(what).inc()
        self._counts[what] += 1

    @property
    def outages(self) -> dict[str, int]:
        """What was lost by us, by its kind."""
        lost = {what: self._counts[what] for what in ("processes", "sessions")}
        return lost | {"zygotes": self._state.zygote_restarts}

    @property
    def model_faults(self) -> dict[str, int]:
        """Cells that their own code has ended, by status."""
        return {status: self._counts[status] for status in MODEL_FAULTS}

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)
