"""What a dry run looks at before anything is started: the same in cold start and training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what it is called, whether it is as it must be, and what was found or has to be done."""

    name: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: " + self.message.replace("\n", "\n        ")
