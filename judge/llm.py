"""An LLM that is asked short questions: several servers, retries, breaker, cache. Verdicts and extractions share it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field

from judge.cache import open_cache
from serving.balancing import NoServer, Server, Servers
from serving.retries import RETRIED, pause_before_s

T = TypeVar("T")
_SPECIAL_TOKEN = re.compile(r"<\|(\w+)\|>")


class JudgeMisconfigured(RuntimeError):
    """The judge refuses every request: a wrong model name, key or URL. Retrying cannot help."""


class LlmSettings(BaseModel):
    """Where the LLM is, and how patiently it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    """Of the judge servers, with `/v1`; none means rules alone. From LLM_AS_A_JUDGE_BASE, comma-separated."""
    model: str = "judge"
    """`--served-model-name` of the judge. Source: DeepEyesV2 0373e6e, README."""
    api_key: str = Field("EMPTY", repr=False)
    cache: str | None = None
    """Answers of before: the path of a SQLite file, or redis://…"""
    timeout_s: float = Field(60.0, gt=0)
    """Of one request."""
    attempts: int = Field(4, ge=1)
    """Requests for one answer before it is given up."""
    patience_s: float = Field(60.0, ge=0)
    """How long a question waits while no server answers anybody; waiting behind other questions has no bound."""
    max_in_flight: int = Field(64, ge=1)
    """Requests of this process; fewer while many are answered 429 or 503, or not in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked(Generic[T]):
    """What came of one question."""

    value: T | None
    """What was read out of the reply; None if nobody gave a readable one."""
    reply: str = ""
    num_tokens: int = 0
    """Read and written for this question; 0 from the cache."""
    problem: str = ""
    """Why there is no value."""
    outage: bool = False
    """No value because no server answered, not because of what it said: asking later may help."""
    from_cache: bool = False


class Llm:
    """One model behind one server or several; opens its connection at first use."""

    def __init__(self, settings: LlmSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(settings.timeout_s, connect=5.0),
            headers={"Authorization": f"Bearer {settings.api_key}"},
            limits=httpx.Limits(max_connections=settings.max_in_flight, max_keepalive_connections=settings.max_in_flight),
        )
        self._servers = Servers(settings.base_urls, max_in_flight=settings.max_in_flight, what="judge")
        self._cache = open_cache(settings.cache)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._cache is not None:
            await self._cache.aclose()

    async def ask(
        self,
        prompt: str,
        read: Callable[[str], T | None],
        *,
        reader: str,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        max_tokens: int = 2048,
    ) -> Asked[T]:
        """Ask until a reply can be read.

        Args:
            prompt: The user message.
            read: Gives what a reply says, or None for one that is unreadable and asked for again.
            reader: Name of `read`: equal prompts that are read differently are different entries of the cache.
            choices: The only replies there are; a server that cannot be held to them is asked without.
            temperature: Of sampling.
            seed: Of sampling; also tells votes apart.
            max_tokens: Of a reply that is not one of `choices`.

        Raises:
            JudgeMisconfigured: A server refuses every request.
        """
        key = json.dumps([prompt, self.settings.model, reader, list(choices), temperature, seed])
        key = hashlib.sha256(key.encode()).hexdigest()
        known = await self._cache.get(key) if self._cache is not None else None
        if known is not None and (value := read(str(known.get("reply", "")))) is not None:
            return Asked(value=value, reply=str(known["reply"]), from_cache=True)
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if seed is not None:
            body["seed"] = seed
        asked = await self._ask(body, read, tuple(choices))
        if self._cache is not None and asked.value is not None:
            await self._cache.put(key, {"reply": asked.reply})
        return asked

    async def ping(self) -> None:
        """Raises:
        ConnectionError: A server does not answer, or serves another model; the message says which.
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

    async def _ask(self, body: dict[str, Any], read: Callable[[str], T | None], choices: tuple[str, ...]) -> Asked[T]:
        settings = self.settings
        asked: Asked[T] = Asked(value=None, problem="no attempt", outage=True)
        tokens = 0
        for attempt in range(settings.attempts):
            await asyncio.sleep(pause_before_s(attempt))
            try:
                async with self._servers.slot(patience_s=settings.patience_s) as server:
                    asked, again = await self._send(server, _constrained(body, server, choices), read)
            except NoServer as error:
                return replace(asked, problem=f"{error}; last: {asked.problem}", outage=True, num_tokens=tokens)
            tokens += asked.num_tokens
            if not again:
                return replace(asked, num_tokens=tokens)
        return replace(asked, problem=f"{settings.attempts} tries, last: {asked.problem}", num_tokens=tokens)

    async def _send(self, server: Server, body: dict[str, Any], read: Callable[[str], T | None]) -> tuple[Asked[T], bool]:
        """What came of one request, and whether another may do better."""
        try:
            response = await self._http.post(f"{server.url}/chat/completions", json=body)
        except httpx.TransportError as error:
            self._servers.did_not_answer(server, error)
            return Asked(value=None, problem=f"{server.url}: {error or type(error).__name__}", outage=True), True
        self._servers.answered(server, response.status_code)
        if response.status_code in RETRIED:
            return Asked(value=None, problem=f"{server.url} answered HTTP {response.status_code}", outage=True), True
        if response.status_code != 200:
            return self._unusable(server, response)
        reply, tokens = _text_and_tokens(response)
        value = read(reply)
        problem = f"an unreadable verdict: {reply[:100]!r}" if value is None else ""
        return Asked(value=value, reply=reply, num_tokens=tokens, problem=problem), value is None

    def _unusable(self, server: Server, response: httpx.Response) -> tuple[Asked[Any], bool]:
        """A status that no retry mends, unless the server only lacks what was asked for.

        Raises:
            JudgeMisconfigured: It refuses every request.
        """
        text = response.text[:300]
        if response.status_code in (400, 422) and server.structured and "structured_outputs" in response.text:
            server.structured = False
            return Asked(value=None, problem=f"{server.url} knows no structured_outputs", outage=True), True
        if response.status_code in (400, 413) and ("context length" in text.lower() or response.status_code == 413):
            return Asked(value=None, problem=f"the question is too long for the judge at {server.url}: {text}"), False
        raise JudgeMisconfigured(
            f"the judge at {server.url} answered HTTP {response.status_code}: {text}; check judge.model "
            f"({self.settings.model!r}), its key and LLM_AS_A_JUDGE_BASE"
        )


def quoted(text: str, *, max_chars: int | None = None) -> str:
    """A JSON string on one line, without special tokens of a tokenizer: it cannot end itself, whatever it says."""
    text = text[:max_chars].encode("utf-8", "replace").decode()
    return json.dumps(_SPECIAL_TOKEN.sub(r"<| \1 |>", text), ensure_ascii=False)


def _constrained(body: dict[str, Any], server: Server, choices: tuple[str, ...]) -> dict[str, Any]:
    if not choices or not server.structured:
        return body
    return body | {"structured_outputs": {"choice": list(choices)}, "max_tokens": 16}


def _text_and_tokens(response: httpx.Response) -> tuple[str, int]:
    """(reply, tokens); an answer of another form is an empty reply."""
    try:
        answer = response.json()
        usage = answer.get("usage") or {}
        return str(answer["choices"][0]["message"]["content"] or ""), int(usage.get("total_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", 0
