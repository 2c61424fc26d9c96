"""One sandbox server's configuration, with units: defaults, a YAML file, then the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from code_sandbox.server.confinement import LAYERS, SessionRequest

BACKENDS = ("fork", "jupyter")
LOG_LEVELS = ("debug", "info", "warning", "error")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _cores() -> int:
    return max(1, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """One server. The token is a secret and comes from CODE_SANDBOX_TOKEN only."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str = ""
    """Path of a Unix socket to listen on instead of host and port."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which callers reach a server that listens on loopback, besides addresses and localhost."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    server_id: str = ""
    """Name of this server in the registry; empty means its address."""
    backend: str = "fork"
    """`fork`: IPython in a forked process. `jupyter`: a Jupyter kernel through jupyter_client, the reference."""
    require_level: int = 1
    """Refuse to start where less isolation is measured: 0 open, 1 confined, 2 isolated, 3 metered."""
    without: tuple[str, ...] = ()
    """Layers to leave out, to see what a weaker system would give."""
    cgroups: tuple[str, ...] = ()
    """Control groups (version 1 or 2) set aside for this server, such as /sys/fs/cgroup/deepeyes; each session gets one."""
    uid_base: int = 1_700_000_000
    """As root, sessions run as this user id and those that follow; nothing else may use them."""
    max_sessions: int = 256
    """A request for one more is answered 429."""
    max_running_cells: int = field(default_factory=lambda: 2 * _cores())
    """Cells running at once; others wait, and their time limit starts when they run."""
    max_waiting_cells: int = 4096
    """Cells that may wait; one more is answered 429."""
    max_starting_kernels: int = field(default_factory=_cores)
    spare_kernels: int = 4
    """Sessions kept ready beyond the live ones, so that opening does not wait for a fork. About 10 MiB each."""
    memory_reserve_bytes: int = 1 << 30
    """A session is refused with 429 when the machine has less left than this."""
    lease_s: float = 600.0
    """Seconds without a call after which a session is closed."""
    start_timeout_s: float = 30.0
    drain_s: float = 30.0
    """How long running cells may finish when the server is asked to end."""
    interrupt_grace_s: float = 2.0
    """After a time-out, how long a cell may take to react to KeyboardInterrupt before its process is killed."""
    memory_limit_bytes: int = 4 << 30
    """Address space of one process, and memory of all processes of a session together."""
    file_limit_bytes: int = 256 << 20
    """Largest file a cell may write."""
    tmp_limit_bytes: int = 256 << 20
    """All files of a session together; needs namespaces."""
    process_limit: int = 64
    """Processes and threads of a session; needs uids or a user namespace."""
    cpu_limit_s: int = 3600
    """CPU time of one process."""
    max_image_bytes: int = 32 << 20
    """An encoded image larger than this is dropped with a note on stderr."""
    max_blob_bytes: int = 64 << 20
    blob_limit_bytes: int = 4 << 30
    """Uploaded images kept together; those that no session uses are removed first."""
    journal_limit_bytes: int = 1 << 20
    """Code of one session kept for a move; a session that ran more cannot move."""
    log_level: str = "info"
    """`debug` writes a line for every cell."""
    log_code: bool = False
    """Write the code of every cell into the log."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level is {self.log_level!r}; expected one of {', '.join(LOG_LEVELS)}")
        if not 0 <= self.require_level <= 3:
            raise ValueError(f"require_level is {self.require_level}; expected 0 to 3")
        if unknown := [name for name in self.without if name not in LAYERS]:
            raise ValueError(f"without names {', '.join(unknown)}; expected some of {', '.join(LAYERS)}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; expected 0 to 65535")
        for name in ("max_sessions", "max_running_cells", "max_starting_kernels", "process_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("lease_s", "start_timeout_s", "interrupt_grace_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0 seconds")

    @property
    def name(self) -> str:
        """This server's name in the registry."""
        return self.server_id or (f"unix:{self.uds}" if self.uds else f"{self.host}:{self.port}")

    @property
    def beyond_loopback(self) -> bool:
        """Whether others than this machine's programs could connect."""
        return not self.uds and self.host not in _LOOPBACK

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that requests may call it by; `*` where no page in a browser can be the caller."""
        return self.allowed_hosts if self.host in _LOOPBACK and not self.uds else self.allowed_hosts or ("*",)

    def session_limits(self) -> SessionRequest:
        """What every session gets."""
        return SessionRequest(
            memory_bytes=self.memory_limit_bytes,
            file_bytes=self.file_limit_bytes,
            tmp_bytes=self.tmp_limit_bytes,
            processes=self.process_limit,
            cpu_s=self.cpu_limit_s,
        )


def load_settings(path: Path | None, overrides: dict[str, Any]) -> ServerSettings:
    """ServerSettings from a YAML file and, above it, single values.

    Raises:
        ValueError: A key is unknown, or a value has the wrong type.
        OSError: The file cannot be read.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected names and values such as `max_sessions: 256`")
    values |= overrides
    known = {entry.name: entry for entry in fields(ServerSettings)}
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{path or 'settings'}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    converted: dict[str, Any] = {}
    for name, value in values.items():
        kind = {"str": str, "int": int, "float": float, "bool": bool}.get(str(known[name].type), tuple)
        if kind is float and isinstance(value, int):
            value = float(value)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{name} is {value!r}; expected {kind.__name__}")
        converted[name] = value
    return ServerSettings(**converted)
