"""A verdict, who gave it, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What is known about an answer."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNDECIDED = "undecided"
    """Nobody could tell: the judge is down, or wrote nothing usable. Never a reward of zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One answer judged."""

    outcome: Outcome
    decided_by: str
    """`rule:<name>`, `judge:<model>` or `nobody`."""
    reason: str = ""
    raw_reply: str = ""
    """What an LLM judge wrote; of several votes the last."""
    prompt_sha256: str = ""
    """Of the judge's prompt file, if a judge was asked."""
    num_tokens: int = 0
    """Read and written by the judge for this verdict; 0 from the cache."""
    seconds: float = 0.0
    """From asking to the verdict, waiting included."""
    from_cache: bool = False
    second_opinion: Outcome | None = None
    """What the LLM said where it is asked for the log only; it decides nothing."""
    outage: bool = False
    """Undecided because no judge answered, not because of what it said: asking later may help."""

    @property
    def correct(self) -> bool | None:
        """True, False, or None for undecided."""
        return None if self.outcome is Outcome.UNDECIDED else self.outcome is Outcome.CORRECT
