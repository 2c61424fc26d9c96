"""A cell as a session gets it, and what it sends back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell as a session gets it."""

    code: str
    timeout_s: float
    max_chars: int
    max_images: int = 0
    max_pixels: int = 1 << 40
    mime: str = "image/png"
    interrupt_grace_s: float = 0.05
    """After a time-out, how long the cell may take to react to KeyboardInterrupt before it is killed."""
    silent: bool = False


@dataclass(slots=True)
class CellOutput:
    """What a cell sent, not yet bounded or checked."""

    status: str = "ok"
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    result: str = ""
    error: tuple[str, str, str] | None = None
    """(name, message, traceback)"""
    images: list[tuple[str, bytes]] = field(default_factory=list)
    """(mime, file)"""
    more_images: int = 0
    state_lost: bool = False
    execution_time_s: float = 0.0
