"""An LLM that is asked short questions: several servers, retries, breaker, cache. Verdicts and extractions share it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field

from judge.cache import open_cache
from judge.connection import Connection, JudgeMisconfigured, asked_to_wait_s, refusal_text, status_and_json
from judge.manners import Manners, Spelling, is_too_long
from judge.replies import JudgeReply, Reading, Spoken, mentions, read_answer, read_choice
from serving.balancing import NoServer, Server, Servers
from serving.retries import RETRIED, pause_before_s

__all__ = ["Asked", "JudgeMisconfigured", "Llm", "LlmSettings"]
T = TypeVar("T")
_LEAST_ROOM = 64
_LAST_REFUSAL = 505
_MOST_ROOM_FACTOR = 16
_RETRY_TEMPERATURES = (0.0, 0.3, 0.6, 0.9)


class LlmSettings(BaseModel):
    """Where the LLM is, and how patiently it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    """Of the judge servers, with `/v1`; none means rules alone. From LLM_AS_A_JUDGE_BASE, comma-separated."""
    model: str = "judge"
    """`--served-model-name` of the judge. Source: DeepEyesV2 0373e6e, README."""
    api_key: str | None = Field(None, repr=False, exclude=True)
    """None is JUDGE_API_KEY; empty is none. Sent to the servers above and nowhere else."""
    cache: str | None = None
    """Answers of before: the path of a SQLite file, or redis://…"""
    timeout_s: float = Field(60.0, gt=0)
    """Of one request; a longer one for a reply that was cut may take longer."""
    attempts: int = Field(4, ge=1)
    """Requests for one answer before it is given up."""
    patience_s: float = Field(60.0, ge=0)
    """How long a question waits while no server answers anybody; waiting behind other questions has no bound."""
    max_in_flight: int = Field(64, ge=1)
    """Requests of this process; fewer while many are answered 429 or 503, or not in time."""
    structured_output: Spelling = "choice"
    """How the server is held to a few words, where a question has only those: `choice` is vLLM's `structured_outputs`,
    `guided_choice` that of older vLLM, `json_schema` the `response_format` of OpenAI, SGLang, llama.cpp, Ollama and others.
    One that refuses or ignores it is noticed, and asked as with `none`: with room, and for a last line of its own."""
    max_reply_tokens: int = Field(2048, ge=1)
    """Of a reply that is not held to a few words, thoughts included; one that is cut is asked for again with four times as
    many."""


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


@dataclass(slots=True)
class _Question(Generic[T]):
    """One question while it is being asked."""

    prompt: str
    read: Callable[[str], T | None]
    choices: tuple[str, ...]
    strictness: Reading
    quotable: bool
    temperature: float
    seed: int | None
    room: int
    held: bool
    """Whether it may still be asked so that the server is held to the choices."""
    unread: int = 0
    """Replies so far that could not be read."""

    def text(self, *, held: bool, label: str) -> str:
        """What is asked this time: with the form of a reply that is not held, and a reminder after an unreadable one."""
        parts = [self.prompt]
        if self.choices and not held and self.strictness != "exact":
            lines = " or ".join(f"`{label}: {choice}`" for choice in self.choices)
            parts.append(f"End your reply with a line of its own that holds nothing but {lines}.")
        if self.unread:
            short = "that one line" if self.choices else "what is asked for, on one line, without explanation or marks"
            parts.append(f"(A reply to this could not be read. Reply with {short} and nothing else.)")
        return "\n\n".join(parts)

    def value(self, said: Spoken, label: str) -> tuple[T | None, str]:
        """(what a reply says, the words that said it)."""
        if not self.choices:
            return self.read(said.text), said.text
        word = read_choice(said, self.choices, strictness=self.strictness, label=label, quotable=self.quotable)
        return (None, "") if word is None else (self.read(word), word)


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[T]):
    """What came of one request."""

    asked: Asked[T]
    words: str = ""
    """That were read."""
    final: bool = False
    """No other request will do better."""
    wait_s: float = 0.0
    """That the server asks for before the next."""


class _AskOtherwise(Exception):
    """The server has shown how it wants to be asked, or how much room there is; this was no attempt."""


class Llm:
    """One model behind one server or several; opens its connection at first use.

    Raises:
        ValueError: The key or a URL cannot be one.
    """

    def __init__(self, settings: LlmSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.connection = Connection(
            settings.base_urls,
            key=settings.api_key,
            model=settings.model,
            timeout_s=settings.timeout_s,
            max_in_flight=settings.max_in_flight,
            transport=transport,
        )
        self._servers = Servers(self.connection.urls, max_in_flight=settings.max_in_flight, what="judge")
        self.manners = {
            url: Manners(self.connection.shown(url), spelling=settings.structured_output) for url in self.connection.urls
        }
        """What each server has shown of how it wants to be asked."""
        self._cache = open_cache(settings.cache)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.connection.aclose()
        if self._cache is not None:
            await self._cache.aclose()

    async def ping(self) -> None:
        """Raises:
        ConnectionError: A server does not answer; the message says which.
        WrongServer: It wants another key, serves another model, or is no such server.
        """
        for url in self.connection.urls:
            await self.connection.ping(url)

    async def ask(
        self,
        prompt: str,
        read: Callable[[str], T | None],
        *,
        reader: str,
        choices: Sequence[str] = (),
        strictness: Reading = "strict",
        material: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Asked[T]:
        """Ask until a reply can be read. What a model thinks is taken off before anybody reads.

        Args:
            prompt: The user message.
            read: Gives what a reply says, or None for one that is unreadable and asked for again. With `choices` it gets one
                of them.
            reader: Name of `read`: equal prompts that are read differently are different entries of the cache.
            choices: The only replies there are. A server that cannot be held to them is asked for a last line with one of
                them and a label that is drawn for the request: what it quotes cannot hold that.
            strictness: How a reply is read that does not keep to that form; see judge/replies.py.
            material: What was filled into the prompt, by default all of it: if it mentions a choice, only that form will do.
            temperature: Of sampling.
            seed: Of sampling; also tells votes apart.

        Raises:
            JudgeMisconfigured: A server refuses every request.
        """
        key = json.dumps([prompt, self.settings.model, reader, list(choices), strictness, temperature, seed])
        key = hashlib.sha256(key.encode()).hexdigest()
        known = await self._cache.get(key) if self._cache is not None else None
        words = str(known.get("said", "")) if known is not None else ""
        if words and (not choices or words in choices) and (value := read(words)) is not None:
            return Asked(value=value, reply=str((known or {}).get("reply", "")), from_cache=True)
        question = _Question(
            prompt=prompt,
            read=read,
            choices=tuple(choices),
            strictness=strictness,
            quotable=bool(choices) and mentions(prompt if material is None else material, choices),
            temperature=temperature,
            seed=seed,
            room=self.settings.max_reply_tokens,
            held=bool(choices),
        )
        attempt = await self._ask(question)
        if self._cache is not None and attempt.asked.value is not None:
            await self._cache.put(key, {"reply": attempt.asked.reply, "said": attempt.words})
        return attempt.asked

    async def _ask(self, question: _Question[T]) -> _Attempt[T]:
        attempts = self.settings.attempts
        last: _Attempt[T] = _Attempt(Asked(value=None, problem="no attempt", outage=True))
        tokens, tried, lost = 0, 0, 0
        while tried < attempts:
            try:
                async with self._servers.slot(patience_s=self.settings.patience_s) as server:
                    last = await self._send(server, question)
            except NoServer as error:
                problem = f"{error}; last: {last.asked.problem}"
                return replace(last, asked=replace(last.asked, problem=problem, outage=True, num_tokens=tokens))
            except _AskOtherwise:
                continue
            tried, tokens = tried + 1, tokens + last.asked.num_tokens
            if last.asked.value is not None or last.final:
                return replace(last, asked=replace(last.asked, num_tokens=tokens))
            if last.asked.outage and tried < attempts:
                lost += 1
                await asyncio.sleep(max(pause_before_s(lost), last.wait_s))
        problem = f"{attempts} tries, last: {last.asked.problem}"
        return replace(last, asked=replace(last.asked, problem=problem, num_tokens=tokens))

    async def _send(self, server: Server, question: _Question[T]) -> _Attempt[T]:
        """What came of one request.

        Raises:
            _AskOtherwise: It was no attempt.
            JudgeMisconfigured: The server refuses every request.
        """
        manners = self.manners[server.url]
        lessons = manners.lessons
        held = question.held and manners.spelling != "none" and not (manners.needs_room and question.quotable)
        label = f"VERDICT-{secrets.token_hex(3)}"
        body = manners.body(self._base(question, held, label), question.choices if held else (), question.room)
        try:
            patience = max(1.0, question.room / self.settings.max_reply_tokens)
            response = await self.connection.post(server.url, body, patience=patience)
        except httpx.TransportError as error:
            self._servers.did_not_answer(server, error)
            return self._lost(server, f"{error or type(error).__name__}")
        status, answer = status_and_json(response)
        if status == 200 and answer is None:
            server.failed()
            return self._lost(server, "a web page, or something else that is no JSON; does the URL end in /v1?")
        self._servers.answered(server, status)
        if status in RETRIED or status > _LAST_REFUSAL:
            return replace(self._lost(server, f"HTTP {status}"), wait_s=asked_to_wait_s(response))
        if status != 200:
            return self._refused(server, status, response.text, question, body, lessons)
        with_room = manners.needs_room or not held
        return self._read(server, question, read_answer(answer), held=held, with_room=with_room, label=label)

    def _base(self, question: _Question[T], held: bool, label: str) -> dict[str, Any]:
        text = question.text(held=held, label=label)
        base: dict[str, Any] = {"model": self.settings.model, "messages": [{"role": "user", "content": text}]}
        again = _RETRY_TEMPERATURES[min(question.unread, len(_RETRY_TEMPERATURES) - 1)]
        base["temperature"] = max(question.temperature, again)
        if question.seed is not None or question.unread:
            base["seed"] = (question.seed or 0) + 1000 * question.unread
        return base

    def _read(
        self, server: Server, question: _Question[T], reply: JudgeReply, *, held: bool, with_room: bool, label: str
    ) -> _Attempt[T]:
        if reply.outage:
            server.failed()
            return self._lost(server, reply.problem)
        value, words = (None, "") if reply.said is None else question.value(reply.said, label)
        manners = self.manners[server.url]
        manners.learn_from_reply(reply, held=held, read=value is not None, with_room=with_room)
        if value is not None:
            return _Attempt(Asked(value=value, reply=reply.raw, num_tokens=reply.num_tokens), words)
        question.unread += 1
        # A server that has just shown that it thinks is asked once more in the same way, with room for that.
        question.held = held and manners.needs_room and not with_room
        if reply.cut and with_room:
            question.room = min(4 * question.room, _MOST_ROOM_FACTOR * self.settings.max_reply_tokens)
        why = reply.problem or "not of the form that was asked for"
        problem = f"an unreadable reply of {manners.url}, {why}: {self.connection.tidy(reply.raw)[:100]!r}"
        return _Attempt(Asked(value=None, reply=reply.raw, num_tokens=reply.num_tokens, problem=problem))

    def _refused(
        self, server: Server, status: int, text: str, question: _Question[T], body: dict[str, Any], lessons: int
    ) -> _Attempt[T]:
        """A status that no retry mends, unless the server only wants to be asked otherwise.

        Raises:
            _AskOtherwise: It does.
            JudgeMisconfigured: It refuses every request.
        """
        manners = self.manners[server.url]
        if is_too_long(status, text):
            room = int(body.get(manners.tokens_field, 0))
            if room > _LEAST_ROOM:
                question.room = max(_LEAST_ROOM, room // 4)
                raise _AskOtherwise
            problem = f"the question is too long for the judge at {manners.url}: {self.connection.tidy(text)[:300]}"
            return _Attempt(Asked(value=None, problem=problem), final=True)
        if status in (400, 422) and (manners.lessons != lessons or manners.learn_from_refusal(body, refusal_text(text))):
            raise _AskOtherwise
        raise self.connection.refusal(server.url, status, text)

    def _lost(self, server: Server, why: str) -> _Attempt[Any]:
        problem = self.connection.tidy(f"{self.connection.shown(server.url)}: {why}")
        return _Attempt(Asked(value=None, problem=problem, outage=True))
