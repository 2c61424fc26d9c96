"""What every generator gives: a gold answer with other spellings of it and with wrong answers.

What a case calls right or wrong holds by how it was made, not by what any rule says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

Random = random.Random


@dataclass(frozen=True)
class Case:
    """One gold answer."""

    gold: str
    right: tuple[str, ...] = ()
    """Other spellings: never to be called wrong."""
    wrong: tuple[str, ...] = ()
    """Other answers: never to be called right."""
    question: str = ""
