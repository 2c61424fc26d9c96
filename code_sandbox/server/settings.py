"""Limits of one sandbox server, with units."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

BACKENDS = ("fork", "jupyter")


def _default_starts() -> int:
    return max(1, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One server's limits. Addresses come from the command line or the environment, everything else from here."""

    host: str = "127.0.0.1"
    port: int = 8000
    redis_url: str = "redis://127.0.0.1:6379/0"
    server_id: str = ""
    """Name of this server in the registry; empty means host:port."""
    backend: str = "fork"
    """`fork`: IPython in a forked process. `jupyter`: a Jupyter kernel through jupyter_client, the reference."""
    max_sessions: int = 256
    """Live kernels; a request for one more is answered 429."""
    max_running_cells: int = field(default_factory=lambda: 2 * _default_starts())
    """Cells running at once; others wait, and their time limit starts when they run."""
    max_starting_kernels: int = field(default_factory=_default_starts)
    spare_kernels: int = 0
    """Kernels kept ready beyond the live sessions, started while the machine has nothing else to do. About 25 MB each."""
    lease_s: float = 600.0
    """Seconds without a call after which a session is closed."""
    start_timeout_s: float = 30.0
    interrupt_grace_s: float = 1.0
    """After a time-out, how long a cell may take to react to KeyboardInterrupt before its kernel is killed."""
    memory_limit_bytes: int = 4 << 30
    """Address space of one kernel."""
    require_no_network: bool = True
    """Refuse to start where sessions cannot be kept off the network."""
    file_limit_bytes: int = 256 << 20
    """Largest file a cell may write."""
    max_output_chars: int = 20_000
    """Of stdout, stderr and traceback each; the rest is cut with a visible mark."""
    max_images: int = 10
    """Images kept of one cell. Source: DeepEyesV2 0373e6e, envs/deepeyesv2/deepeyesv2.py:77."""
    max_image_bytes: int = 32 << 20
    """An encoded image larger than this is dropped with a note on stderr."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}")
        for name in ("max_sessions", "max_running_cells", "max_starting_kernels", "max_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("lease_s", "start_timeout_s", "interrupt_grace_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0 seconds")

    @property
    def name(self) -> str:
        """This server's name in the registry."""
        return self.server_id or f"{self.host}:{self.port}"
