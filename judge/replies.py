"""Reading a judge's reply. Two strictness levels, after the two published ones (DeepEyesV2 0373e6e, reward_score).

`strict`    the last line holds one of the two words and nothing else
`lenient`   exactly one of the two words occurs, anywhere; the published reasoning judge is read so, the rubric judge takes
            any "Yes"
"""

from __future__ import annotations

import re
from typing import Literal

from judge.verdict import Outcome

Strictness = Literal["strict", "lenient"]
CHOICES = ("CORRECT", "INCORRECT")
_WORD = re.compile(r"\b(IN)?CORRECT\b")
_THINKING = re.compile(r"^.*</think>", re.DOTALL)


def parse_reply(reply: str, strictness: Strictness = "strict") -> Outcome | None:
    """The verdict in a reply, or None if there is none to be sure of. What a judge thinks aloud (`</think>`) is left out."""
    reply = _THINKING.sub("", reply)
    if strictness == "lenient":
        found = {match[0] for match in _WORD.finditer(reply)}
        return _outcome(found.pop()) if len(found) == 1 else None
    lines = [line.strip(" *`.\"'") for line in reply.splitlines() if line.strip()]
    return _outcome(lines[-1]) if lines and lines[-1] in CHOICES else None


def _outcome(word: str) -> Outcome:
    return Outcome.CORRECT if word == "CORRECT" else Outcome.INCORRECT
