"""Rules first, then an LLM behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from string import Template

import httpx
from pydantic import BaseModel, ConfigDict, Field

from judge.rules import Rules
from judge.verdict import Outcome, Verdict

_PROMPTS = Path(__file__).parent / "prompts"
_CHOICES = ("CORRECT", "INCORRECT")
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
_MAX_ANSWER_CHARS = 4000


class JudgeMisconfigured(RuntimeError):
    """The judge refuses every request: a wrong model name, key or URL. Retrying cannot help."""


class JudgeSettings(BaseModel):
    """How answers are judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    """Of the judge servers, with `/v1`; none means rules alone. From LLM_AS_A_JUDGE_BASE, comma-separated."""
    model: str = "judge"
    """`--served-model-name` of the judge. Source: DeepEyesV2 0373e6e, README."""
    api_key: str = Field("EMPTY", repr=False)
    prompt: str = "consistency"
    """A file in judge/prompts."""
    strict_rules: bool = False
    """What no rule accepts is wrong, and no LLM is asked."""
    structured_output: bool = True
    """Ask vLLM to choose between CORRECT and INCORRECT, so that the reply always parses."""
    timeout_s: float = Field(60.0, gt=0)
    attempts: int = Field(4, ge=1)
    max_in_flight: int = Field(64, ge=1)


class Judge:
    """Judges answers; opens its connection at first use."""

    def __init__(self, settings: JudgeSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._rules = Rules(strict=settings.strict_rules)
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(settings.timeout_s, connect=5.0),
            headers={"Authorization": f"Bearer {settings.api_key}"},
        )
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._next_server = 0
        path = _PROMPTS / f"{settings.prompt}.txt"
        if not path.is_file():
            names = ", ".join(sorted(file.stem for file in _PROMPTS.glob("*.txt")))
            raise LookupError(f"no judge prompt {settings.prompt!r}; there are: {names}")
        self._prompt = Template(path.read_text(encoding="utf-8"))
        self.prompt_sha256 = hashlib.sha256(self._prompt.template.encode()).hexdigest()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def judge(self, answer: str | None, gold: str | Sequence[str], *, question: str) -> Verdict:
        """Judge one answer. An outage gives UNDECIDED, never a wrong answer.

        Raises:
            ValueError: There is no gold answer.
            JudgeMisconfigured: The server refuses every request.
        """
        verdict = self._rules.judge(answer, gold, question=question)
        if verdict.outcome is not Outcome.UNDECIDED or not self.settings.base_urls:
            return verdict
        assert answer is not None
        golds = gold if isinstance(gold, str) else " or ".join(gold)
        async with self._slots:
            return await self._ask(self._fill(question, golds, answer))

    async def ping(self) -> None:
        """Raises:
        ConnectionError: A judge server does not answer; the message says which.
        """
        for url in self.settings.base_urls:
            try:
                response = await self._http.get(f"{url.rstrip('/')}/models", timeout=5.0)
                response.raise_for_status()
                served = [model["id"] for model in response.json()["data"]]
            except (httpx.HTTPError, LookupError, ValueError, TypeError) as error:
                raise ConnectionError(
                    f"no judge at {url} ({error or type(error).__name__}); start one with `bash judge/serve.sh` or set "
                    "LLM_AS_A_JUDGE_BASE"
                ) from error
            if self.settings.model not in served:
                raise ConnectionError(
                    f"the judge at {url} serves {', '.join(served)}, not {self.settings.model!r}; start it with "
                    f"`--served-model-name {self.settings.model}` or set judge.model"
                )

    def _fill(self, question: str, gold: str, answer: str) -> str:
        # JSON strings keep an answer inside its quotes, whatever it says.
        return self._prompt.substitute(
            question=json.dumps(question, ensure_ascii=False),
            gold=json.dumps(gold, ensure_ascii=False),
            answer=json.dumps(answer[:_MAX_ANSWER_CHARS], ensure_ascii=False),
        )

    async def _ask(self, prompt: str) -> Verdict:
        settings = self.settings
        body = {
            "model": settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0.0,
            "max_tokens": 16 if settings.structured_output else 2048,
        }
        if settings.structured_output:
            body["structured_outputs"] = {"choice": list(_CHOICES)}
        pause_s, last = 0.5, ""
        for attempt in range(settings.attempts):
            if attempt:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
                pause_s = min(2 * pause_s, 10.0)
            url = settings.base_urls[self._next_server % len(settings.base_urls)]
            self._next_server += 1
            try:
                response = await self._http.post(f"{url.rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError as error:
                last = f"{url}: {error or type(error).__name__}"
                continue
            if response.status_code in _RETRIED:
                last = f"{url} answered HTTP {response.status_code}"
                continue
            if response.status_code != 200:
                raise JudgeMisconfigured(
                    f"the judge at {url} answered HTTP {response.status_code}: {response.text[:300]}; check judge.model "
                    f"({settings.model!r}), its key and LLM_AS_A_JUDGE_BASE"
                )
            reply = _reply_text(response)
            outcome = parse_reply(reply)
            if outcome is not None:
                return Verdict(outcome=outcome, decided_by=f"judge:{settings.model}", raw_reply=reply)
            last = f"an unreadable verdict: {reply[:100]!r}"
        return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason=f"{settings.attempts} tries, last: {last}")


def _reply_text(response: httpx.Response) -> str:
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, LookupError, TypeError):
        return ""


def parse_reply(reply: str) -> Outcome | None:
    """Read a verdict: the last line must be one of the two words and nothing else. None if it is not."""
    lines = [line.strip(" *`.\"'") for line in reply.splitlines() if line.strip()]
    if not lines or lines[-1] not in _CHOICES:
        return None
    return Outcome.CORRECT if lines[-1] == "CORRECT" else Outcome.INCORRECT
