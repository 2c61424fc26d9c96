"""Rules first, then an LLM behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from judge.cache import open_cache
from judge.replies import CHOICES, Strictness, parse_reply
from judge.rules import Rules, may_take_long
from judge.servers import NoServer, Server, Servers
from judge.verdict import Outcome, Verdict

_PROMPTS = Path(__file__).parent / "prompts"
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
_TOO_MUCH = {429, 503}
_MAX_ANSWER_CHARS = 4000
_SPECIAL_TOKEN = re.compile(r"<\|(\w+)\|>")
_VOTE_TEMPERATURE = 0.7
_UNREADABLE = "an unreadable verdict"


class JudgeMisconfigured(RuntimeError):
    """The judge refuses every request: a wrong model name, key or URL. Retrying cannot help."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """Instructions to the judge, with places for question, gold and answer."""

    template: Template
    sha256: str

    def fill(self, question: str, gold: str, answer: str) -> str:
        """What the judge reads."""
        return self.template.substitute(
            question=_quoted(question), gold=_quoted(gold), answer=_quoted(answer[:_MAX_ANSWER_CHARS])
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


class JudgeSettings(BaseModel):
    """How answers are judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    """Of the judge servers, with `/v1`; none means rules alone. From LLM_AS_A_JUDGE_BASE, comma-separated."""
    model: str = "judge"
    """`--served-model-name` of the judge. Source: DeepEyesV2 0373e6e, README."""
    api_key: str = Field("EMPTY", repr=False)
    prompt: str = "consistency"
    """A file in judge/prompts: `consistency` for perception and search, `equivalence` for reasoning."""
    strict_rules: bool = False
    """What no rule accepts is wrong, and no LLM is asked."""
    structured_output: Literal["choice", "none"] = "choice"
    """`choice` lets vLLM write one of the two words only; a server that refuses it is asked without."""
    strictness: Strictness = "strict"
    """How a reply that was not constrained is read; see judge/replies.py."""
    votes: int = Field(1, ge=1)
    """Asked so often, at a temperature of 0.7 from two on; the majority decides, and none is undecided."""
    cache: str | None = None
    """Verdicts of before: the path of a SQLite file, or redis://…"""
    timeout_s: float = Field(60.0, gt=0)
    """Of one request."""
    attempts: int = Field(4, ge=1)
    """Requests for one vote before it is undecided."""
    patience_s: float = Field(60.0, ge=0)
    """How long a verdict waits while no server answers anybody; waiting behind other verdicts has no bound."""
    max_in_flight: int = Field(64, ge=1)
    """Requests of this process; fewer while a server says 429 or 503, or does not answer in time."""


class Judge:
    """Judges answers; opens its connection at first use. `counters` says who decided how often."""

    def __init__(self, settings: JudgeSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self._rules = Rules(strict=settings.strict_rules)
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(settings.timeout_s, connect=5.0),
            headers={"Authorization": f"Bearer {settings.api_key}"},
            limits=httpx.Limits(max_connections=settings.max_in_flight, max_keepalive_connections=settings.max_in_flight),
        )
        self._servers = Servers(settings.base_urls, max_in_flight=settings.max_in_flight)
        self._cache = open_cache(settings.cache)
        self.prompt_sha256 = load_judge_prompt(settings.prompt).sha256

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._cache is not None:
            await self._cache.aclose()

    async def judge(
        self, answer: str | None, gold: str | Sequence[str], *, question: str, prompt: str | None = None
    ) -> Verdict:
        """Judge one answer. An outage gives UNDECIDED, never a wrong answer.

        Args:
            answer: The model's; None is no answer.
            gold: One, or several of which any will do.
            question: What was asked.
            prompt: Of judge/prompts; None is that of the settings.

        Raises:
            ValueError: There is no gold answer.
            JudgeMisconfigured: The server refuses every request.
        """
        started = time.monotonic()
        if may_take_long(gold):
            verdict = await asyncio.to_thread(self._rules.judge, answer, gold, question=question)
        else:
            verdict = self._rules.judge(answer, gold, question=question)
        if verdict.outcome is Outcome.UNDECIDED and self.settings.base_urls:
            assert answer is not None
            chosen = load_judge_prompt(prompt or self.settings.prompt)
            verdict = await self._ask_or_remember(chosen, question, gold, answer)
            verdict = replace(verdict, prompt_sha256=chosen.sha256)
        self.counters[verdict.decided_by] += 1
        return replace(verdict, seconds=time.monotonic() - started)

    async def _ask_or_remember(self, chosen: JudgePrompt, question: str, gold: str | Sequence[str], answer: str) -> Verdict:
        prompt = chosen.fill(question, gold if isinstance(gold, str) else " or ".join(gold), answer)
        key = self._key(prompt)
        known = await self._cache.get(key) if self._cache is not None else None
        if known is not None and known.get("outcome") in (Outcome.CORRECT, Outcome.INCORRECT):
            self.counters["from_cache"] += 1
            return self._verdict(Outcome(known["outcome"]), str(known.get("raw_reply", "")), from_cache=True)
        verdict = await self._vote(prompt)
        if self._cache is not None and verdict.outcome is not Outcome.UNDECIDED:
            await self._cache.put(key, {"outcome": verdict.outcome.value, "raw_reply": verdict.raw_reply})
        return verdict

    def _key(self, prompt: str) -> str:
        """Of everything that decides a verdict; the filled prompt holds question, gold, answer and instructions."""
        settings = self.settings
        parts = [prompt, settings.model, settings.votes, settings.strictness, settings.structured_output]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

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

    async def _vote(self, prompt: str) -> Verdict:
        votes: Counter[Outcome] = Counter()
        needed = self.settings.votes // 2 + 1
        tokens, last = 0, None
        for number in range(self.settings.votes):
            last = await self._ask(prompt, seed=number)
            tokens += last.num_tokens
            votes[last.outcome] += 1
            if last.outcome is Outcome.UNDECIDED:
                break  # an outage does not get better by voting
            if votes[last.outcome] >= needed:
                return replace(last, num_tokens=tokens)
        assert last is not None
        if last.outcome is Outcome.UNDECIDED:
            return replace(last, num_tokens=tokens)
        reason = f"{votes[Outcome.CORRECT]} of {self.settings.votes} votes say correct"
        return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason=reason, num_tokens=tokens)

    async def _ask(self, prompt: str, *, seed: int) -> Verdict:
        """One vote."""
        settings = self.settings
        last, pause_s = "no attempt", 0.5
        for attempt in range(settings.attempts):
            if attempt:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
                pause_s = min(2 * pause_s, 10.0)
            try:
                async with self._servers.slot(patience_s=settings.patience_s) as server:
                    found = await self._send(server, self._body(prompt, server, seed))
            except NoServer as error:
                return replace(self._undecided(f"{error}; last: {last}"), outage=True)
            if isinstance(found, Verdict):
                return found
            last = found
        outage = not last.startswith(_UNREADABLE)
        return replace(self._undecided(f"{attempt + 1} tries, last: {last}"), outage=outage)

    async def _send(self, server: Server, body: dict[str, Any]) -> Verdict | str:
        """A verdict, or why there is none this time."""
        try:
            response = await self._http.post(f"{server.url}/chat/completions", json=body)
        except httpx.TransportError as error:
            server.failed()
            if isinstance(error, httpx.TimeoutException):
                self._servers.shrink()
            return f"{server.url}: {error or type(error).__name__}"
        if response.status_code in _RETRIED:
            if response.status_code in _TOO_MUCH:
                self._servers.shrink()
            if response.status_code != 429:  # a server that is busy is not broken
                server.failed()
            return f"{server.url} answered HTTP {response.status_code}"
        if response.status_code != 200:
            return self._refused(server, response)
        self._servers.succeeded(server)
        reply, tokens = _read(response)
        outcome = parse_reply(reply, self.settings.strictness)
        if outcome is None:
            return f"{_UNREADABLE}: {reply[:100]!r}"
        return replace(self._verdict(outcome, reply), num_tokens=tokens)

    def _refused(self, server: Server, response: httpx.Response) -> Verdict | str:
        """A status that no retry mends, unless the server only lacks what was asked for.

        Raises:
            JudgeMisconfigured: It refuses every request.
        """
        text = response.text[:300]
        if response.status_code in (400, 422) and server.structured and "structured_outputs" in response.text:
            server.structured = False
            return f"{server.url} knows no structured_outputs"
        if response.status_code in (400, 413) and ("context length" in text.lower() or response.status_code == 413):
            return self._undecided(f"the question is too long for the judge at {server.url}: {text}")
        raise JudgeMisconfigured(
            f"the judge at {server.url} answered HTTP {response.status_code}: {text}; check judge.model "
            f"({self.settings.model!r}), its key and LLM_AS_A_JUDGE_BASE"
        )

    def _body(self, prompt: str, server: Server, seed: int) -> dict[str, Any]:
        settings = self.settings
        constrained = settings.structured_output == "choice" and server.structured
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0.0 if settings.votes == 1 else _VOTE_TEMPERATURE,
            "max_tokens": 16 if constrained else 2048,
        }
        if settings.votes > 1:
            body["seed"] = seed
        if constrained:
            body["structured_outputs"] = {"choice": list(CHOICES)}
        return body

    def _verdict(self, outcome: Outcome, reply: str, *, from_cache: bool = False) -> Verdict:
        by = f"judge:{self.settings.model}"
        return Verdict(outcome=outcome, decided_by=by, raw_reply=reply, from_cache=from_cache)

    def _undecided(self, reason: str) -> Verdict:
        return Verdict(outcome=Outcome.UNDECIDED, decided_by="nobody", reason=reason)


def _quoted(text: str) -> str:
    """A JSON string on one line, without special tokens of a tokenizer: it cannot end itself, whatever it says."""
    text = text.encode("utf-8", "replace").decode()
    return json.dumps(_SPECIAL_TOKEN.sub(r"<| \1 |>", text), ensure_ascii=False)


def _read(response: httpx.Response) -> tuple[str, int]:
    """(reply, tokens); an answer of another form is an empty reply."""
    try:
        answer = response.json()
        usage = answer.get("usage") or {}
        return str(answer["choices"][0]["message"]["content"] or ""), int(usage.get("total_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", 0
