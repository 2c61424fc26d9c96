"""Answers that have to be found in a worked solution first: by the judge, then compared by a rule of the benchmark.

Source of the two steps: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathvista.py and mathv.py; the prompt's words are ours.
There the judge's reply is compared as it stands, so that `**14**` is wrong for 14; here that is so in parity only. Else
marks around a reply are taken off, and one that is not of the form that was asked for is unreadable: asked for again, and in
the end not evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.scoring.grader import Grade, Grader
from judge.llm import Asked
from judge.marks import is_nothing, number_text, one_line, option


def lettered(choices: Sequence[str]) -> dict[str, str]:
    """A, B, C … for a list of options."""
    return {chr(ord("A") + number): text for number, text in enumerate(choices)}


@dataclass(frozen=True, slots=True)
class Form:
    """What an extraction looks like."""

    name: str
    """For the cache: equal replies are read differently."""
    read: Callable[[str], str | None]
    """None for a reply that is not of this form; "null" for nothing."""


def as_text(reply: str) -> str | None:
    """A reply of the judge that is taken as it is; an empty one is unreadable."""
    return reply or None


AS_IT_IS = Form("text", as_text)
"""As the reference reads."""


def _line(reply: str) -> str | None:
    text = one_line(reply)
    return "null" if text is not None and is_nothing(text) else text


LINE = Form("line", _line)
"""Anything on one line."""


def _number(reply: str) -> str | None:
    text = _line(reply)
    return text if text == "null" else number_text(reply)


NUMBER = Form("number", _number)
"""One number; a unit behind it is left out."""

# What is left of an expression without the commands of LaTeX and the names of functions.
_NAMES = re.compile(r"\\[A-Za-z]+|\b(?:sin|cos|tan|cot|log|ln|exp|sqrt|pi|mod|max|min)\b")
_WORDS_BESIDE = re.compile(r"[A-Za-z]{2,}|\d\s+[A-Za-z]|[\u0400-\u1fff\u3040-\ud7ff]")


def _expression(reply: str) -> str | None:
    text = _line(reply)
    if text is None or text == "null":
        return text
    return None if _WORDS_BESIDE.search(_NAMES.sub("", text)) else text


EXPRESSION = Form("expression", _expression)
"""A value, perhaps in LaTeX, without words and units."""


def letter_of(choices: Mapping[str, str]) -> Form:
    """The letter of one of these options."""
    return Form(f"option:{''.join(choices)}", lambda reply: option(reply, choices))


def form_of(gold: str) -> Form:
    """An expression if the gold answer is one with digits, else a line."""
    return EXPRESSION if any(char.isdigit() for char in gold) and _expression(gold) else LINE


async def extract(question: str, answer: str, grader: Grader, form: Form = LINE) -> Asked[str]:
    """The final answer of a solution, as the judge reads it."""
    form = AS_IT_IS if grader.parity else form
    return await grader.ask("maths", form.read, reader=form.name, question=question, answer=answer)


async def grade_extracted(
    question: str, answer: str, grader: Grader, is_right: Callable[[str], bool], form: Form = LINE
) -> Grade:
    """What the judge extracts is held against the gold answer; without a judge it is not evaluated."""
    if not grader.has_llm:
        return grader.no_llm()
    asked = await extract(question, answer, grader, form)
    if asked.value is None:
        return grader.undecided(asked)
    return grader.by_judge(is_right(asked.value), asked.value, asked)
