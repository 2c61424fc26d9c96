"""What stops a curation. What a model or a teacher says wrongly stops nothing: it becomes a verdict, or a reason."""

from __future__ import annotations

from code_sandbox.command_line import OUTAGE


class CurationError(ValueError):
    """The file, its data or its folder cannot be used as they stand; the message says what to do."""


class CurationStopped(RuntimeError):
    """Going on is pointless for now: what was done is kept, and the same command goes on later."""

    exit_status = OUTAGE
