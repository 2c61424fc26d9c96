"""What an OpenAI-compatible server's answer says, in all the forms that servers give it.

What is no answer of the model is an outage of ours (`NoAnswer`), never an empty reply: an error in the middle of a stream, a
stream that was cut, a reply that the server broke off or withheld, a page of HTML, calls of tools in place of text.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.protocol import STOP_STRINGS

OnText = Callable[[str], None]
"""Called with each piece of a reply as it arrives."""
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_details", "thinking_blocks")
"""Most servers; OpenRouter and LiteLLM send the last two beside one of the others, or alone."""
_INSIDE = ("text", "thinking", "reasoning", "summary", "content", "refusal", "value")
"""Where a part of a list keeps its words."""
_UNSEEN_TOKENS = 8
"""An empty reply is a token or two, that of its end; more that nobody sees are in a field that we do not know."""
_BROKEN = {"abort", "aborted", "error", "cancelled", "canceled", "timeout", "network_error", "insufficient_system_resource"}
_ACTED = (*STOP_STRINGS, "</answer>")
_WITHHELD = {"content_filter", "content-filter", "safety", "recitation", "sensitive", "blocklist", "prohibited_content"}
_FORBIDDEN = ("content_filter", "content_policy_violation", "data_inspection_failed", "invalid_prompt")
"""Codes by which Azure OpenAI, OpenAI and DashScope refuse a question before any model reads it."""
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"}


class NoAnswer(Exception):
    """This is no answer of the model.

    Args:
        reason: For people.
        again: Whether asking again may help.
        withheld: Whether the server's own rules are why.
    """

    def __init__(self, reason: str, *, again: bool = True, withheld: bool = False) -> None:
        super().__init__(reason)
        self.again, self.withheld = again, withheld


@dataclass(slots=True)
class Answer:
    """One answer, put together from whatever parts it came in."""

    text: str = ""
    """Stop string included if the server leaves it in, thoughts in front of it as `<think>…</think>`."""
    thought: str = ""
    finish: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    tool_calls: list[str] = field(default_factory=list)
    """Names."""
    cut_by_us: bool = False
    """The server went on behind a stop string."""

    @property
    def was_cut(self) -> bool:
        """Whether a limit on tokens ended it."""
        return self.finish in _CUT and not self.cut_by_us

    def add(self, choice: dict[str, Any], part: dict[str, Any]) -> list[str]:
        """Take in a message, or a piece of one; gives what is new of the text and the thought, as it is shown.

        Raises:
            TypeError, AttributeError, LookupError, ValueError: It has no known form.
        """
        content, thought = _text_and_thought(part.get("content"))
        thought += next(filter(None, (_words(part.get(name)) for name in _THOUGHT_FIELDS)), "")
        if not content and isinstance(part.get("refusal"), str):
            content = part["refusal"]
        calls = [call.get("function") or call for call in part.get("tool_calls") or ()]
        calls.append(part.get("function_call") or {})
        self.tool_calls += [str(call["name"]) for call in calls if call.get("name")]
        self.finish = str(choice.get("finish_reason") or self.finish).casefold()
        self.token_ids += choice.get("token_ids") or []
        entries = (choice.get("logprobs") or {}).get("content") or ()
        self.logprobs += [float(entry["logprob"]) for entry in entries]
        shown = []
        if thought:
            shown.append(thought if self.thought else f"<think>{thought}")
            self.thought += thought
        if content and not self.cut_by_us:
            kept = self._until_a_stop_string(content)
            shown.append(kept if self.text or not self.thought else f"</think>{kept}")
            self.text += kept
        return shown

    def _until_a_stop_string(self, piece: str) -> str:
        whole = self.text + piece
        ends = [whole.find(stop) + len(stop) for stop in STOP_STRINGS if stop in whole]
        if ends and whole[min(ends) :].strip():
            self.cut_by_us = True
            return whole[len(self.text) : min(ends)]
        return piece

    def reply_text(self, primer: str) -> str:
        """All that the model wrote behind a primer."""
        if not self.thought:
            return self.text
        opening = "" if primer.rstrip().endswith("<think>") else "<think>"
        closing = "" if self.was_cut and not self.text else "</think>"
        return f"{opening}{self.thought}{closing}{self.text}"

    def check(self) -> None:
        """Raises:
        NoAnswer: The server says that this is none.
        """
        if self.finish in _BROKEN:
            raise NoAnswer(f"the server broke the reply off (finish_reason {self.finish!r})")
        if self.finish in _WITHHELD:
            raise NoAnswer(f"the server withheld the reply (finish_reason {self.finish!r})", again=False, withheld=True)
        called = self.tool_calls or re.search("tool_call|function_call", self.finish)
        if called and not self.text.rstrip().endswith(_ACTED):
            raise NoAnswer(
                f"the server answers with calls of tools ({', '.join(self.tool_calls[:3]) or self.finish}) in place of "
                "text; start it without a parser for tool calls",
                again=False,
            )
        if self.text or self.thought or self.finish in _CUT:
            return
        if not self.finish:
            raise NoAnswer("the server sent neither a reply nor a reason why it ended")
        tokens = self.usage.get("completion_tokens")
        if isinstance(tokens, int) and tokens > _UNSEEN_TOKENS:
            raise NoAnswer(
                f"the server counts {tokens} tokens of a reply and sends none of its text; a parser for thoughts or tool "
                "calls keeps it: start the server without",
                again=False,
            )


def read_answer(answer: Any) -> Answer:
    """The JSON of a whole chat completion.

    Raises:
        NoAnswer: It is none.
    """
    if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
        raise _server_error(answer["error"])
    found = Answer()
    try:
        choice = answer["choices"][0]
        found.add(choice, choice["message"])
        found.usage = answer.get("usage") or {}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"the model server's answer is no chat completion: {str(answer)[:300]}"
        raise NoAnswer(message, again=False) from error
    if choice.get("error"):
        raise _server_error(choice["error"])
    found.check()
    return found


def read_whole(body: str, kind: str) -> Answer:
    """The same from the body of a response, whatever it is.

    Raises:
        NoAnswer: It is no JSON.
    """
    try:
        return read_answer(json.loads(body))
    except ValueError as error:
        page = "html" in kind or body.lstrip()[:1] == "<"
        what = "a page of HTML" if page else f"no JSON ({body[:80]!r})"
        raise NoAnswer(f"the answer is {what}; is the base URL right, with its /v1?") from error


def is_stream(body: str) -> bool:
    """Whether a body consists of server-sent events, as of servers that stream whatever they are asked."""
    return re.match(r"\ufeff?\s*(?:(?:data|event|id|retry)?:)", body) is not None


async def read_stream(chunks: AsyncIterator[str], on_text: OnText) -> Answer:
    """The whole answer out of server-sent events, shown piece by piece.

    Raises:
        NoAnswer: An event is an error or unreadable, or the stream ended before the reply did.
    """
    found, done, rest, begun = Answer(), False, [], ""
    async for line in _lines(chunks):
        if not line.startswith("data:"):
            if begun and not line.strip() and not done:
                raise _unreadable(begun)
            if line.strip() and not line.startswith((":", "event:", "id:", "retry:")):
                rest.append(line)
            continue
        data = begun + line.removeprefix("data:").strip()
        if data in ("", "[DONE]"):
            done = done or bool(data)
            continue
        try:
            event = json.loads(data)
        except ValueError:
            begun = f"{data}\n"  # an event may have several lines
            continue
        begun = ""
        try:
            _take_in(found, event, on_text)
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise _unreadable(data) from error
    if begun and not done:
        raise _unreadable(begun)
    if rest and not (found.text or found.thought or found.finish or done):
        whole = read_whole("\n".join(rest), "")
        on_text(whole.reply_text(""))
        return whole
    if not (done or found.finish or found.cut_by_us or found.text.rstrip().endswith(STOP_STRINGS)):
        raise NoAnswer("the stream ended before the reply did")
    found.check()
    return found


async def _lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """The lines of a stream of events. `str.splitlines` would also cut at U+2028 and its like, which a reply may hold."""
    rest, is_first = "", True
    async for chunk in chunks:
        rest += chunk.removeprefix("\ufeff") if is_first else chunk
        is_first = is_first and not chunk
        *lines, rest = re.split(r"\r\n|\n|\r", rest)
        for line in lines:
            yield line
    if rest:
        yield rest


def _take_in(found: Answer, event: Any, on_text: OnText) -> None:
    """Raises:
    NoAnswer: The event is an error.
    ValueError, AttributeError, TypeError, LookupError: It has no known form.
    """
    if event.get("error") or "error" in (event.get("object"), event.get("type")):
        raise _server_error(event.get("error") or event)
    found.usage = event.get("usage") or found.usage
    for choice in event.get("choices") or ():
        if choice.get("error"):
            raise _server_error(choice["error"])
        for piece in found.add(choice, choice.get("delta") or choice.get("message") or {}):
            on_text(piece)


def _unreadable(data: str) -> NoAnswer:
    return NoAnswer(f"an event cannot be read: {data[:200]!r}")


def _server_error(error: Any) -> Exception:
    message = error.get("message") if isinstance(error, dict) else error
    return NoAnswer(f"the server reports an error: {str(message or error)[:500]}")


def _text_and_thought(content: Any) -> tuple[str, str]:
    if content is None or isinstance(content, str):
        return content or "", ""
    text, thought = "", ""
    for part in [content] if isinstance(content, dict) else content:
        if isinstance(part, dict) and re.search(r"think|reason", str(part.get("type", ""))):
            thought += _words(part)
        else:
            text += _words(part)
    return text, thought


def _words(part: Any) -> str:
    """All words of a text, of a part of one, or of a list of such."""
    if part is None or isinstance(part, str):
        return part or ""
    if isinstance(part, dict):
        return next(filter(None, (_words(part.get(name)) for name in _INSIDE)), "")
    return "".join(_words(inner) for inner in part)


# ---- refusals ----

_ROOM = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        r"passed (?P<prompt>\d+) input tokens.*?context length is only (?P<limit>\d+)",
        r"context length (?:is|of) (?P<limit>\d+).*?(?:has|have|at least) (?P<prompt>\d+) input tokens",
        r"context length (?:is|of) (?P<limit>\d+).*?(?P<prompt>\d+) (?:tokens )?(?:in|from|of text input in) the [mi]",
        r"(?P<prompt>\d+) \+ \d+ > (?P<limit>\d+)",
        r"must be <= (?P<limit>\d+)\. Given: (?P<prompt>\d+) `?inputs`? tokens",
    )
)
_MOST = re.compile(
    r"(?:at most|less than or equal to|<=|range of max_tokens (?:is|should be) \[\d+,)\s*(?P<most>\d+)", re.IGNORECASE
)
_NAMES_THE_LIMIT = re.compile(r"max_(?:completion_|new_)?tokens|(?:completion|output) tokens", re.IGNORECASE)


def is_forbidden(status: int, message: str) -> bool:
    """Whether a refusal says that the server's own rules forbid the question."""
    return status in (400, 403, 422) and any(f'"{code}"' in message.casefold() for code in _FORBIDDEN)


def tokens_left(message: str, asked: int) -> int | None:
    """What a reply may have, by a refusal of a limit of `asked` tokens; None if it does not say, or says none."""
    for form in _ROOM:
        if (found := form.search(message)) is not None:
            left = int(found["limit"]) - int(found["prompt"])
            return left if 0 < left < asked else None
    if _NAMES_THE_LIMIT.search(message) and (most := _MOST.search(message)) is not None:
        return int(most["most"]) if 0 < int(most["most"]) < asked else None
    return None


_MAY_BE_LEFT_OUT = (
    "stream_options", "include_stop_str_in_output", "skip_special_tokens", "return_token_ids", "logprobs", "seed", "top_p",
    "temperature", "stop", "stream",
)  # fmt: skip
_UNKNOWN = re.compile(
    r"unrecognized|unsupported|not supported|does not support|unknown|unexpected|not permitted|extra (?:inputs|fields)"
    r"|extra_forbidden|not allowed|invalid (?:parameter|argument|field|param)|no such|not a valid|cannot (?:both )?be"
    r"|deprecated|array too long",
    re.IGNORECASE,
)


def refused_fields(status: int, message: str, body: dict[str, Any]) -> list[str]:
    """Fields of a request that a strict server does not know, and that it can do without."""
    if status not in (400, 422) or _UNKNOWN.search(message) is None:
        return []
    refused = [name for name in _MAY_BE_LEFT_OUT if name in body and re.search(rf"\b{name}\b", message)]
    return [*refused, "stream_options"] if "stream" in refused else refused


LEAST_TEMPERATURE = 0.01
"""In place of 0 where it must be larger; vLLM raises whatever lies between to it (vllm 0.28, sampling_params.py)."""
_MUST_BE_LARGER = re.compile(r"positive|greater than|larger than|> ?0|\(0(?:\.0)?,|in the range|between", re.IGNORECASE)


def refuses_zero(status: int, message: str, body: dict[str, Any]) -> bool:
    """Whether a server wants a temperature above 0, as TGI, FastChat and DashScope do."""
    names_it = status in (400, 422) and body.get("temperature") == 0 and "temperature" in message.lower()
    return names_it and _MUST_BE_LARGER.search(message) is not None


def wants_other_limit(status: int, message: str, body: dict[str, Any]) -> bool:
    """Whether a server wants `max_completion_tokens` in place of `max_tokens`."""
    names_both = "max_tokens" in body and "max_completion_tokens" in message
    return status == 400 and names_both and _UNKNOWN.search(message) is not None
