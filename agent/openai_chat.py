"""Policy over an OpenAI-compatible chat server; used by evaluation and by the demo."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from agent.chat_answers import (
    LEAST_TEMPERATURE,
    Answer,
    NoAnswer,
    OnText,
    is_forbidden,
    is_stream,
    read_stream,
    read_whole,
    refused_fields,
    refuses_zero,
    tokens_left,
    wants_other_limit,
)
from agent.chat_formats import without_reply_end
from agent.errors import ContextFull, PolicyUnavailable, ReplyWithheld
from agent.messages import Message
from agent.model_keys import NO_KEY
from agent.policy import Reply
from agent.protocol import STOP_STRINGS
from code_sandbox.redaction import checked_url, redact_requests_log, redacted, secrets_of
from serving.refusals import is_too_long
from serving.retries import RETRIED, pause_before_s

_LOG = logging.getLogger(__name__)
_WRITES_NOTHING = re.compile(
    r"embed|rerank|bge-|\be5-|\bgte-|minilm|col(?:bert|pali|qwen)|whisper|tts-|moderation|dall-e|diffusion", re.IGNORECASE
)
_TOO_LARGE = "; a proxy before the server, such as nginx with client_max_body_size, refuses the images"


class ChatSettings(BaseModel):
    """How to ask the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Such as http://127.0.0.1:18000/v1."""
    model: str
    api_key: str = Field(NO_KEY, repr=False)
    dialect: Literal["vllm", "openai"] = "vllm"
    """`vllm` asks for the stop string in the output and goes on with a reply that a primer began; `openai` does neither."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    timeout_s: float = Field(600.0, gt=0)
    attempts: int = Field(5, ge=1)
    """Times a request is sent before the server counts as down."""
    record_tokens: bool = False
    """Ask a vLLM server for token ids and log-probabilities, for the record."""

    @property
    def can_prime(self) -> bool:
        """Whether the server can go on with a reply that was begun for the model."""
        return self.dialect == "vllm"


class ChatClient:
    """Connection to one server, shared by the episodes of a run.

    Args:
        settings: How it is asked.
        transport: Spreads requests over several servers, or is a test's.
        others: Addresses of those servers: what stands in them is shown to nobody, either.

    Raises:
        ValueError: The address is none.
    """

    def __init__(
        self, settings: ChatSettings, *, transport: httpx.AsyncBaseTransport | None = None, others: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        key = () if settings.api_key == NO_KEY else (settings.api_key,)
        self._secrets = (*key, *secrets_of(checked_url(settings.base_url, "a model server"), *others))
        redact_requests_log()
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(settings.timeout_s, connect=10.0),
            headers={"Authorization": f"Bearer {settings.api_key}"},
            limits=httpx.Limits(max_connections=None),
        )
        self._left_out: set[str] = set()
        """Fields that the server has refused."""
        self._other_limit = False
        self._least_temperature = 0.0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def asking(self, **changes: Any) -> ChatClient:
        """The same connections, asked in another way; only the first of them is closed.

        Args:
            changes: Of `settings`: not of `base_url` or `api_key`, which the connections are made for.

        Raises:
            ValidationError: A setting cannot be so.
        """
        other = copy.copy(self)
        other.settings = ChatSettings.model_validate(self.settings.model_dump() | changes)
        return other

    def _tidy(self, text: str) -> str:
        """Words about the server, or of it, without its key and its address's password."""
        return redacted(text, *self._secrets)

    async def models(self) -> list[str]:
        """Names of the models that the server has, without those that embed, rank or listen.

        Raises:
            PolicyUnavailable: It does not answer, or not in the usual form.
        """
        url = f"{self.settings.base_url.rstrip('/')}/models"
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            models = response.json()["data"]
            names = [str(model["id"]) for model in models]
            kinds = {str(model["id"]): str(model.get("type")) for model in models}
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise PolicyUnavailable(self._tidy(f"{url} lists no models ({why}); is the server up?")) from error
        # LM Studio says of each what it is.
        writing = [name for name in names if not _WRITES_NOTHING.search(name) and kinds[name] != "embeddings"]
        if not writing:
            raise PolicyUnavailable(self._tidy(f"{url} lists {', '.join(names) or 'no model'}; load one that writes text"))
        return writing

    async def complete(self, body: dict[str, Any], on_text: OnText | None = None) -> Answer:
        """Send one chat request.

        A server that does not know a field of it is asked without, from then on; one that has not so many tokens left for a
        reply is asked for those that it has.

        Args:
            body: As the API wants it.
            on_text: Streams the answer; a stream that breaks off after its first piece is not sent again.

        Raises:
            ContextFull: The server says the prompt is too long.
            ReplyWithheld: Its own rules forbid the question, or the reply.
            PolicyUnavailable: It did not give a usable answer in `attempts` tries.
        """
        url, last, attempt = f"{self.settings.base_url.rstrip('/')}/chat/completions", "", 0
        body = self._as_it_is_taken(body)
        while attempt < self.settings.attempts:
            await asyncio.sleep(pause_before_s(attempt))
            attempt += 1
            shown = _Shown(on_text)
            try:
                async with self._http.stream("POST", url, json=body) as response:
                    if response.status_code == 200:
                        return await _read(response, shown if on_text is not None else None)
                    await response.aread()
            except (httpx.TransportError, NoAnswer) as error:
                last = f"{type(error).__name__}: {error}" if isinstance(error, httpx.TransportError) else str(error)
                if isinstance(error, NoAnswer) and is_too_long(400, last):
                    raise ContextFull(self._tidy(last)) from error
                if shown.anything:
                    raise PolicyUnavailable(self._tidy(f"the model server's stream broke off ({last})")) from error
                if isinstance(error, NoAnswer) and error.withheld:
                    raise ReplyWithheld(self._tidy(last)) from error
                if isinstance(error, NoAnswer) and not error.again:
                    break
                continue
            last = f"HTTP {response.status_code}: {self._tidy(response.text)[:300]}"
            last += _TOO_LARGE if response.status_code == 413 else ""
            if (changed := self._changed(body, response.status_code, response.text)) is not None:
                body, attempt = changed, attempt - 1
                continue
            if is_too_long(response.status_code, response.text):
                raise ContextFull(self._tidy(response.text)[:300])
            if is_forbidden(response.status_code, response.text):
                raise ReplyWithheld(self._tidy(f"the server forbids the question ({last})"))
            if response.status_code not in RETRIED:
                break
        raise PolicyUnavailable(
            self._tidy(f"{url} gave no answer ({last}); is the server up, and does it serve {self.settings.model!r}?")
        )

    def _as_it_is_taken(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request without what the server has refused before."""
        taken = {name: value for name, value in body.items() if name not in self._left_out}
        if self._other_limit and "max_tokens" in taken:
            taken["max_completion_tokens"] = taken.pop("max_tokens")
        if "temperature" in taken:
            taken["temperature"] = max(taken["temperature"], self._least_temperature)
        return taken

    def _changed(self, body: dict[str, Any], status: int, message: str) -> dict[str, Any] | None:
        """A request that the server may take in place of one that it has refused; None if there is none."""
        if wants_other_limit(status, message, body):
            self._other_limit = True
            return self._as_it_is_taken(body)
        limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
        if status in (400, 413, 422) and limit in body and (left := tokens_left(message, body[limit])) is not None:
            return body | {limit: left}
        if is_too_long(status, message):
            return None
        if refuses_zero(status, message, body):
            self._least_temperature = LEAST_TEMPERATURE
            where = self._tidy(self.settings.base_url)
            _LOG.warning("%s does not take temperature 0; it is asked with %g", where, LEAST_TEMPERATURE)
            return self._as_it_is_taken(body)
        fields = refused_fields(status, message, body)
        if not fields:
            return None
        self._left_out |= set(fields)
        _LOG.warning("%s does not take %s; it is asked without", self._tidy(self.settings.base_url), ", ".join(fields))
        return self._as_it_is_taken(body)


class _Shown:
    """Passes pieces on, and knows whether there were any."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self.anything = False

    def __call__(self, piece: str) -> None:
        if piece and self._on_text is not None:
            self.anything = True
            self._on_text(piece)


async def _read(response: httpx.Response, on_text: OnText | None) -> Answer:
    """Raises:
    NoAnswer: It is none.
    """
    kind = response.headers.get("content-type", "").lower()
    if on_text is not None and "json" not in kind and "html" not in kind:
        return await read_stream(response.aiter_text(), on_text)
    await response.aread()
    if is_stream(response.text):
        return await read_stream(response.aiter_text(), on_text or (lambda _: None))
    answer = read_whole(response.text, kind)
    if on_text is not None:
        on_text(answer.reply_text(""))
    return answer


class ChatPolicy:
    """One conversation. Keeps the history, and sends all of it each turn: a chat server has no memory.

    Args:
        client: Of the server.
        max_reply_tokens: Of one reply; None leaves it to the server: whatever its context still holds.
        primer: Put before each reply that follows an observation; empty for none.
        on_text: Streams the replies.
        seed: Of sampling, instead of the client's.

    Raises:
        ValueError: The server cannot go on with a primer.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        max_reply_tokens: int | None,
        primer: str,
        on_text: OnText | None = None,
        seed: int | None = None,
    ) -> None:
        if primer and not client.settings.can_prime:
            raise ValueError(f"primer {primer!r} needs a vLLM server; set dialect: vllm, or primer: ''")
        self._client = client
        self._max_reply_tokens = max_reply_tokens
        self._primer = primer
        self._seed = client.settings.seed if seed is None else seed
        self._on_text = on_text
        self._history: list[dict[str, Any]] = []

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        """Append the new messages and ask."""
        settings = self._client.settings
        self._history += [_to_chat(message) for message in new_messages]
        primer = self._primer if any(message["role"] == "assistant" for message in self._history) else ""
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": self._history,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "stop": list(STOP_STRINGS),
        }
        bounds = [bound for bound in (self._max_reply_tokens, max_tokens) if bound is not None]
        if bounds:
            body["max_tokens"] = min(bounds)
        if self._seed is not None:
            body["seed"] = self._seed
        if settings.dialect == "vllm":
            # Structural tokens that the tokenizer holds as special must not be dropped from what the model wrote.
            body |= {"include_stop_str_in_output": True, "skip_special_tokens": False}
            if settings.record_tokens:
                body |= {"logprobs": True, "return_token_ids": True}
        if primer:
            body["messages"] = [*self._history, {"role": "assistant", "content": primer}]
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if self._on_text is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        reply = self._reply(await self._client.complete(body, self._on_text), primer)
        self._history.append({"role": "assistant", "content": primer + reply.text})
        return reply

    def _reply(self, answer: Answer, primer: str) -> Reply:
        text = without_reply_end(answer.reply_text(primer))
        if not answer.was_cut:
            text = _restore_stop_string(text)
        # What stands behind a stop string was sampled, but is no part of the reply: its tokens would not be these.
        exact = len(answer.logprobs) == len(answer.token_ids) and not answer.cut_by_us
        try:
            num_tokens = int(answer.usage.get("completion_tokens") or 0)
            num_prompt_tokens = int(answer.usage.get("prompt_tokens") or 0)
        except (TypeError, ValueError):
            num_tokens = num_prompt_tokens = 0
        return Reply(
            text=text,
            finish="length" if answer.was_cut else "stop",
            primer=primer,
            token_ids=() if answer.cut_by_us else tuple(answer.token_ids),
            logprobs=tuple(answer.logprobs) if exact else (),
            num_tokens=num_tokens,
            num_prompt_tokens=num_prompt_tokens,
        )


def _restore_stop_string(text: str) -> str:
    """Servers that cut the stop string off leave an opened tag; the model did write its end."""
    for stop in STOP_STRINGS:
        if text.count(stop.replace("/", "")) > text.count(stop):
            return text + stop
    return text


def _to_chat(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part.data_uri()}}
        for part in message.parts()
    ]
    return {"role": message.role, "content": content}
