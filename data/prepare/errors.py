"""The error of a set that cannot be prepared."""

from __future__ import annotations


class PrepareError(ValueError):
    """Nothing was changed, or what was done is kept and marked as unfinished; the message says which and what to do."""
