"""Answers that have to be found in a worked solution first: by the judge, then compared by a rule of the benchmark.

Source of the two steps: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathvista.py and mathv.py; the prompt's words are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.scoring.grader import Grade, Grader
from judge.llm import Asked


def lettered(choices: Sequence[str]) -> dict[str, str]:
    """A, B, C … for a list of options."""
    return {chr(ord("A") + number): text for number, text in enumerate(choices)}


def as_text(reply: str) -> str | None:
    """A reply of the judge that is taken as it is; an empty one is unreadable."""
    return reply or None


async def extract(question: str, answer: str, grader: Grader) -> Asked[str]:
    """The final answer of a solution, as the judge reads it."""
    return await grader.ask("maths", as_text, reader="text", question=question, answer=answer)


async def grade_extracted(question: str, answer: str, grader: Grader, is_right: Callable[[str], bool]) -> Grade:
    """What the judge extracts is held against the gold answer; without a judge it is not evaluated."""
    if not grader.has_llm:
        return grader.no_llm()
    asked = await extract(question, answer, grader)
    if asked.value is None:
        return grader.undecided(asked)
    return grader.by_judge(is_right(asked.value), asked.value, asked)
