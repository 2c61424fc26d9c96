"""When a request is sent again, and after what pause: to model servers, and to whatever else is asked by HTTP."""

from __future__ import annotations

import random

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530})
"""Statuses after which the same request may go well a moment later; from 520 on they are of gateways to hosted models."""
TOO_MUCH = frozenset({429, 503, 529})
"""Statuses with which a server says that it is asked too much."""
BROKEN = RETRIED - {429}
"""Statuses that speak against the server: one that is only busy is not broken."""
_FIRST_S, _LONGEST_S = 0.5, 10.0
_MOST_DOUBLINGS = 32  # 68 years; powers of a thousand attempts are no float


def pause_before_s(attempt: int, *, longest_s: float = _LONGEST_S) -> float:
    """How long to wait before an attempt, in seconds: not at all before the first, half a second before the second, then
    twice as long each time. Half as much more or less is drawn by chance, so that many who failed together do not come back
    together.

    Args:
        attempt: 0 for the first.
        longest_s: Of a pause, before chance.
    """
    if attempt == 0:
        return 0.0
    doublings = min(attempt - 1, _MOST_DOUBLINGS)
    return min(_FIRST_S * 2.0**doublings, longest_s) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
