"""VLMEvalKit's multiple-choice rule. Source: VLMEvalKit e8e78f05, vlmeval/utils/matching_util.py (can_infer)."""

from __future__ import annotations

from collections.abc import Mapping

_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_LAST_TOKENS = 4


def infer_option(answer: str, letters: Mapping[str, str]) -> str | None:
    """The option letter in an answer: the only one that is a word of its own, among the last four words.

    Returns:
        A letter, "Z" for a refusal, or None.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return "Z"
    words = answer.translate(_MARKS).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1:
        return found[0] if words.index(found[0]) >= len(words) - _LAST_TOKENS else None
    return "Z" if not found and "Z" in words else None


def infer_text(answer: str, choices: Mapping[str, str]) -> str | None:
    """The option whose text is the only one contained in the answer; None for long answers."""
    lowered = answer.lower()
    if len(lowered) > 2 * sum(len(text) for text in choices.values()):
        return None
    found = [letter for letter, text in choices.items() if text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def infer_choice(answer: str, choices: Mapping[str, str]) -> str | None:
    """The option that an answer means, by letter first and then by text; None if no rule can tell."""
    return infer_option(answer, choices) or infer_text(answer, choices)
