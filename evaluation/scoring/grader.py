"""What grading an answer needs beside the rules: the profile, and an LLM that extracts or decides where rules cannot."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TypeVar

from evaluation.scoring.profiles import Profile
from judge.client import Judge
from judge.llm import Asked
from judge.quoting import quoted

T = TypeVar("T")
_PROMPTS = Path(__file__).parent.parent / "prompts"
_MAX_ANSWER_CHARS = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """One answer scored."""

    correct: bool | None
    """None: not evaluated, because of an outage or because nobody could decide. Never counted as wrong."""
    decided_by: str
    """`rule:<name>`, `judge:<model>`, or why nobody decided: `no_judge`, `judge_unreadable`, `judge_outage`, `failed`,
    `not_run`, `unusable_row`, `scorer_failed`."""
    extracted: str = ""
    """What was read out of the answer."""
    partial: float | None = None
    """Credit in [0, 1] where a benchmark gives some for half an answer."""
    extra: Mapping[str, float | str] = field(default_factory=dict)
    """Further measures of the benchmark."""
    judge_tokens: int = 0

    @property
    def score(self) -> float | None:
        """What counts, in [0, 1]; None if not evaluated."""
        if self.correct is None:
            return None
        return self.partial if self.partial is not None else float(self.correct)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model gave for one item."""

    text: str
    """The final answer; without one, the last reply after its thinking."""
    full: str = ""
    """All that the model wrote."""
    answered: bool = True
    """Whether `text` is a final answer that was marked as one."""


@dataclass(frozen=True, slots=True)
class _Template:
    template: Template
    sha256: str


@functools.cache
def load_grading_prompt(name: str) -> _Template:
    """A file of evaluation/prompts."""
    text = (_PROMPTS / f"{name}.txt").read_text(encoding="utf-8")
    return _Template(Template(text), hashlib.sha256(text.encode()).hexdigest())


class Grader:
    """Shared by all items of a scoring.

    Args:
        profile: Whose rules.
        judge: With servers, it is asked where rules cannot decide; without, it knows rules only.
        parity: Do what the reference does when its judge gives nothing usable: count the answer as wrong, and for multiple
        choice
            draw an option at random (seeded by the item here; not seeded there). Off, such an answer is not evaluated.
    """

    def __init__(self, profile: Profile, judge: Judge, *, parity: bool = False) -> None:
        self.profile = profile
        self.parity = parity
        self._judge = judge
        self.prompts: dict[str, str] = {}
        """Judge prompts that were used -> sha256."""

    @property
    def has_llm(self) -> bool:
        """Whether there is an LLM to ask."""
        return bool(self._judge.settings.base_urls)

    @property
    def judge_name(self) -> str:
        """The LLM's model name; `none` without one."""
        return self._judge.settings.model if self.has_llm else "none"

    async def ask(
        self,
        prompt: str,
        read: Callable[[str], T | None],
        *,
        reader: str,
        choices: Sequence[str] = (),
        **values: str,
    ) -> Asked[T]:
        """Ask the LLM with a prompt of evaluation/prompts; its `$names` are filled with JSON strings.

        In parity only a bare choice is taken, as in the reference.

        Raises:
            JudgeMisconfigured: It refuses every request.
        """
        loaded = load_grading_prompt(prompt)
        self.prompts[prompt] = loaded.sha256
        filled = {name: quoted(value, max_chars=_MAX_ANSWER_CHARS) for name, value in values.items()}
        return await self._judge.llm.ask(
            loaded.template.substitute(filled),
            read,
            reader=reader,
            choices=choices,
            strictness="exact" if self.parity else "strict",
            material="\n".join(values.values()),
        )

    async def ask_text(self, text: str, read: Callable[[str], T | None], *, reader: str) -> Asked[T]:
        """Ask the LLM with a whole prompt, such as one that a benchmark brings.

        Raises:
            JudgeMisconfigured: It refuses every request.
        """
        return await self._judge.llm.ask(text, read, reader=reader)

    async def verdict(
        self,
        answer: str,
        gold: str | Sequence[str],
        *,
        question: str,
        prompt: str | None = None,
        by_llm_alone: bool = False,
    ) -> Grade:
        """Right or wrong, by judge/rules first and then by the LLM; or by the LLM alone, as the fork asks."""
        verdict = await self._judge.judge(answer, gold, question=question, prompt=prompt, by_llm_alone=by_llm_alone)
        if verdict.prompt_sha256:
            self.prompts[prompt or self._judge.settings.prompt] = verdict.prompt_sha256
        decided_by = verdict.decided_by
        if verdict.correct is None:
            decided_by = self._nobody(outage=verdict.outage)
        return Grade(
            correct=verdict.correct, decided_by=decided_by, extracted=answer.strip(), judge_tokens=verdict.num_tokens
        )

    def by_judge(self, correct: bool, extracted: str, asked: Asked[T], *, partial: float | None = None) -> Grade:
        """A grade that rests on what the LLM said."""
        by = f"judge:{self._judge.settings.model}"
        return Grade(correct=correct, decided_by=by, extracted=extracted, partial=partial, judge_tokens=asked.num_tokens)

    def undecided(self, asked: Asked[T]) -> Grade:
        """The LLM gave nothing usable: not evaluated, or wrong as in the reference."""
        if self.parity and not asked.outage:
            return Grade(correct=False, decided_by="judge:unreadable", judge_tokens=asked.num_tokens)
        return Grade(correct=None, decided_by=self._nobody(outage=asked.outage), judge_tokens=asked.num_tokens)

    def no_llm(self) -> Grade:
        """This answer needs an LLM, and there is none."""
        return Grade(correct=None, decided_by="no_judge")

    def draw(self, item_id: str, options: Sequence[str]) -> str:
        """The reference's random option, the same for an item every time."""
        return random.Random(item_id).choice(list(options))  # noqa: S311 - parity, not a secret

    def _nobody(self, *, outage: bool) -> str:
        if not self.has_llm:
            return "no_judge"
        return "judge_outage" if outage else "judge_unreadable"
