"""Policy over an OpenAI-compatible chat server; used by evaluation and by the demo."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from agent.chat_formats import without_reply_end
from agent.errors import ContextFull, PolicyUnavailable
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import STOP_STRINGS
from serving.retries import RETRIED, pause_before_s


class ChatSettings(BaseModel):
    """How to ask the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    """Such as http://127.0.0.1:18000/v1."""
    model: str
    api_key: str = Field("EMPTY", repr=False)
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


OnText = Callable[[str], None]
"""Called with each piece of a reply as it arrives."""


class ChatClient:
    """Connection to one server, shared by the episodes of a run."""

    def __init__(self, settings: ChatSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(settings.timeout_s, connect=10.0),
            headers={"Authorization": f"Bearer {settings.api_key}"},
            limits=httpx.Limits(max_connections=None),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[str]:
        """Names of the models that the server has.

        Raises:
            PolicyUnavailable: It does not answer, or not in the usual form.
        """
        url = f"{self.settings.base_url.rstrip('/')}/models"
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            return [str(model["id"]) for model in response.json()["data"]]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise PolicyUnavailable(f"{url} lists no models ({type(error).__name__}: {error}); is the server up?") from error

    async def complete(self, body: dict[str, Any], on_text: OnText | None = None) -> dict[str, Any]:
        """Send one chat request.

        Args:
            body: As the API wants it.
            on_text: Streams the answer; a stream that breaks off after its first piece is not sent again.

        Raises:
            ContextFull: The server says the prompt is too long.
            PolicyUnavailable: It did not give a usable answer in `attempts` tries.
        """
        url, last = f"{self.settings.base_url.rstrip('/')}/chat/completions", ""
        for attempt in range(self.settings.attempts):
            await asyncio.sleep(pause_before_s(attempt))
            try:
                async with self._http.stream("POST", url, json=body) as response:
                    if response.status_code == 200 and on_text is not None:
                        return await _read_stream(response, on_text)
                    await response.aread()
                if response.status_code == 200:
                    answer: dict[str, Any] = response.json()
                    return answer
            except (httpx.TransportError, ValueError) as error:
                last = f"{type(error).__name__}: {error}"
                continue
            last = f"HTTP {response.status_code}: {response.text[:300]}"
            if response.status_code == 400 and _is_too_long(response.text):
                raise ContextFull(response.text[:300])
            if response.status_code not in RETRIED:
                break
        raise PolicyUnavailable(
            f"{url} gave no answer ({last}); is the server up, and does it serve {self.settings.model!r}?"
        )


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
        answer = await self._client.complete(body, self._on_text)
        reply = self._read(answer, primer)
        self._history.append({"role": "assistant", "content": primer + reply.text})
        return reply

    def _read(self, answer: dict[str, Any], primer: str) -> Reply:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            finish = choice["finish_reason"]
            usage = answer.get("usage") or {}
            num_tokens = int(usage.get("completion_tokens") or 0)
            token_ids = tuple(choice.get("token_ids") or ())
            logprobs = tuple(float(entry["logprob"]) for entry in (choice.get("logprobs") or {}).get("content") or ())
        except (LookupError, TypeError, ValueError) as error:
            raise PolicyUnavailable(f"the model server's answer is no chat completion: {str(answer)[:300]}") from error
        text = without_reply_end(text)
        if finish != "length":
            text = _restore_stop_string(text)
        return Reply(
            text=text,
            finish="length" if finish == "length" else "stop",
            primer=primer,
            token_ids=token_ids,
            logprobs=logprobs if len(logprobs) == len(token_ids) else (),
            num_tokens=num_tokens,
            num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        )


async def _read_stream(response: httpx.Response, on_text: OnText) -> dict[str, Any]:
    """The whole answer out of server-sent events, in the form of an answer that was not streamed."""
    text, finish, usage = "", None, None
    try:
        async for line in response.aiter_lines():
            if not line.startswith("data:") or line.strip() == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data:"))
            usage = event.get("usage") or usage
            for choice in event.get("choices") or ():
                piece = (choice.get("delta") or {}).get("content") or ""
                finish = choice.get("finish_reason") or finish
                if piece:
                    text += piece
                    on_text(piece)
    except (httpx.TransportError, ValueError, AttributeError) as error:
        if text:
            raise PolicyUnavailable(f"the model server's stream broke off ({type(error).__name__}: {error})") from error
        raise ValueError(f"the stream cannot be read: {error}") from error
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def _restore_stop_string(text: str) -> str:
    """Servers that cut the stop string off leave an opened tag; the model did write its end."""
    for stop in STOP_STRINGS:
        if text.count(stop.replace("/", "")) > text.count(stop):
            return text + stop
    return text


def _is_too_long(message: str) -> bool:
    lowered = message.lower()
    return "context length" in lowered or "maximum model length" in lowered or "longer than the maximum" in lowered


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
