"""Where the page is served. Stands alone, so that a command line is read without what serving needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class WebOptions:
    """Where the page is served."""

    host: str = "127.0.0.1"
    port: int = 8766
    """0 is any that is free."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which it is reached besides addresses and localhost; beyond loopback all, if none is given."""
    replay: Path | None = None
    """A run whose records are replayed instead of the chat's own."""
