"""The error of a file that could not be brought here."""

from __future__ import annotations


class FetchFailed(RuntimeError):
    """The file could not be had, or is not what its name says; the message says what to do next."""
