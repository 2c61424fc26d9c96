"""Rules first, then an LLM behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

import httpx
from pydantic import Field

from judge.llm import JudgeMisconfigured, Llm, LlmSettings
from judge.quoting import quoted
from judge.replies import CHOICES, Strictness, outcome_of
from judge.rules import Rules, may_take_long
from judge.verdict import Outcome, Verdict
from serving.tracing import tracer

__all__ = ["Judge", "JudgeMisconfigured", "JudgePrompt", "JudgeSettings", "load_judge_prompt"]
_PROMPTS = Path(__file__).parent / "prompts"
_MAX_ANSWER_CHARS = 4000
_VOTE_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """Instructions to the judge, with places for question, gold and answer."""

    template: Template
    sha256: str

    def fill(self, question: str, gold: str, answer: str) -> str:
        """What the judge reads."""
        return self.template.substitute(
            question=quoted(question), gold=quoted(gold), answer=quoted(answer, max_chars=_MAX_ANSWER_CHARS)
        )


@functools.cache
def load_judge_prompt(name: str) -> JudgePrompt:
    """A file of judge/prompts.

    Raises:
        LookupError: There is none of that name; the message lists those that are.
    """
    path = _PROMPTS / f"{name}.txt"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in _PROMPTS.glob("*.txt")))
        raise LookupError(f"no judge prompt {name!r}; there are: {names}")
    text = path.read_text(encoding="utf-8")
    return JudgePrompt(Template(text), hashlib.sha256(text.encode()).hexdigest())


class JudgeSettings(LlmSettings):
    """How answers are judged."""

    prompt: str = "consistency"
    """A file in judge/prompts: `consistency` for perception and search, `equivalence` for reasoning."""
    strict_rules: bool = False
    """What no rule accepts is wrong, and no LLM is asked."""
    log_only: bool = False
    """The LLM is asked about every answer, but only `Verdict.second_opinion` says what it thinks: rules alone decide."""
    strictness: Strictness = "strict"
    """How a reply is read that keeps to no form; see judge/replies.py."""
    votes: int = Field(1, ge=1)
    """Asked so often, at a temperature of 0.7 from two on; the majority decides, and none is undecided."""


class Judge:
    """Judges answers; opens its connection at first use. `counters` says who decided how often."""

    def __init__(self, settings: JudgeSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._rules = Rules(strict=settings.strict_rules)
        self.llm = Llm(settings, transport=transport)
        """For questions other than verdicts, with the same servers, bounds and cache."""
        self.prompt_sha256 = load_judge_prompt(settings.prompt).sha256

    async def aclose(self) -> None:
        """Close the connections."""
        await self.llm.aclose()

    async def ping(self) -> None:
        """Raises:
        ConnectionError: A judge server does not answer, or (WrongServer) is not the one that was asked for.
        """
        await self.llm.ping()

    async def judge(
        self,
        answer: str | None,
        gold: str | Sequence[str],
        *,
        question: str,
        prompt: str | None = None,
        by_llm_alone: bool = False,
    ) -> Verdict:
        """Judge one answer. An outage gives UNDECIDED, never a wrong answer.

        Args:
            answer: The model's; None is no answer.
            gold: One, or several of which any will do.
            question: What was asked.
            prompt: Of judge/prompts; None is that of the settings.
            by_llm_alone: The rules keep silent. Without servers, or without an answer, they speak nevertheless.

        Raises:
            ValueError: There is no gold answer.
            JudgeMisconfigured: The server refuses every request.
        """
        tracing = tracer()
        if tracing is None:
            return await self._judge(answer, gold, question=question, prompt=prompt, by_llm_alone=by_llm_alone)
        with tracing.start_as_current_span("judge", attributes={"gen_ai.evaluation.name": "correctness"}) as span:
            verdict = await self._judge(answer, gold, question=question, prompt=prompt, by_llm_alone=by_llm_alone)
            span.set_attribute("gen_ai.evaluation.score.label", verdict.outcome)
            span.set_attribute("deepeyes.decided_by", verdict.decided_by)
            return verdict

    async def _judge(
        self, answer: str | None, gold: str | Sequence[str], *, question: str, prompt: str | None, by_llm_alone: bool
    ) -> Verdict:
        started = time.monotonic()
        if by_llm_alone and self.settings.base_urls and answer is not None and not self.settings.log_only:
            verdict = _undecided("the LLM alone was asked", num_tokens=0)
        elif may_take_long(answer, gold):
            verdict = await asyncio.to_thread(self._rules.judge, answer, gold, question=question)
        else:
            verdict = self._rules.judge(answer, gold, question=question)
        if self.settings.base_urls and answer is not None:
            chosen = load_judge_prompt(prompt or self.settings.prompt)
            if self.settings.log_only:
                second = await self._second_opinion(chosen, question, gold, answer)
                verdict = replace(verdict, second_opinion=second.outcome, num_tokens=second.num_tokens)
            elif verdict.outcome is Outcome.UNDECIDED:
                verdict = replace(await self._vote(chosen, question, gold, answer), prompt_sha256=chosen.sha256)
        self.counters[verdict.decided_by] += 1
        return replace(verdict, seconds=time.monotonic() - started)

    async def _second_opinion(self, prompt: JudgePrompt, question: str, gold: str | Sequence[str], answer: str) -> Verdict:
        """What the LLM would have said; its outage is no reason to stop anything."""
        try:
            return await self._vote(prompt, question, gold, answer)
        except JudgeMisconfigured as error:
            self.counters["misconfigured"] += 1
            return _undecided(str(error), num_tokens=0)

    async def _vote(self, prompt: JudgePrompt, question: str, gold: str | Sequence[str], answer: str) -> Verdict:
        settings = self.settings
        golds = gold if isinstance(gold, str) else " or ".join(gold)
        text = prompt.fill(question, golds, answer)
        votes: Counter[Outcome] = Counter()
        needed = settings.votes // 2 + 1
        tokens, from_cache = 0, True
        for number in range(settings.votes):
            asked = await self.llm.ask(
                text,
                outcome_of,
                reader="verdict",
                choices=CHOICES,
                strictness=settings.strictness,
                material=f"{question}\n{golds}\n{answer}",
                temperature=0.0 if settings.votes == 1 else _VOTE_TEMPERATURE,
                seed=number if settings.votes > 1 else None,
            )
            tokens, from_cache = tokens + asked.num_tokens, from_cache and asked.from_cache
            if asked.value is None:  # an outage does not get better by voting
                return _undecided(asked.problem, num_tokens=tokens, outage=asked.outage)
            votes[asked.value] += 1
            if votes[asked.value] >= needed:
                if from_cache:
                    self.counters["from_cache"] += 1
                return Verdict(
                    outcome=asked.value,
                    decided_by=f"judge:{settings.model}",
                    raw_reply=asked.reply,
                    num_tokens=tokens,
                    from_cache=from_cache,
                )
        return _undecided(f"{votes[Outcome.CORRECT]} of {settings.votes} votes say correct", num_tokens=tokens)


def _undecided(reason: str, *, num_tokens: int, outage: bool = False) -> Verdict:
    return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason=reason, num_tokens=num_tokens, outage=outage)
