"""A judge made of a list, and judge servers as they are: each misbehaves in one way that was seen of a real one.

    with judge_server(Misbehaviour.THINKS_IN_TAGS, lambda prompt: "CORRECT") as server:
        settings = JudgeSettings(base_urls=(server.url,))

Sources of the kinds: vLLM 0.28 (vllm/reasoning, vllm/parser, chat_completion/protocol.py) and the reports named beside them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from judge.verdict import Outcome, Verdict


class FakeJudge:
    """Gives the outcome that was set for an answer; UNDECIDED for all others."""

    def __init__(self, outcomes: Mapping[str, Outcome] | None = None) -> None:
        self._outcomes = dict(outcomes or {})
        self.asked: list[tuple[str | None, str]] = []

    async def judge(
        self, answer: str | None, gold: str | Sequence[str], *, question: str, prompt: str | None = None
    ) -> Verdict:
        self.asked.append((answer, question))
        outcome = self._outcomes.get(answer or "", Outcome.UNDECIDED)
        return Verdict(outcome=outcome, decided_by="judge:fake")


class Misbehaviour(StrEnum):
    """What a judge server does, beside giving the right answer."""

    NONE = "none"
    """Keeps to `structured_outputs`, as vLLM does."""
    IGNORES_STRUCTURE = "ignores structure"
    """Takes unknown fields in silence and writes prose, cut where `max_tokens` ends. vllm-project/vllm#12225."""
    REFUSES_STRUCTURE = "refuses structure"
    """HTTP 400 for a field that it does not know, as OpenAI's does."""
    ONLY_GUIDED_CHOICE = "guided_choice only"
    """vLLM up to 0.11."""
    ONLY_JSON_SCHEMA = "json_schema only"
    """SGLang, llama.cpp, Ollama, LM Studio, OpenAI."""
    THINKS_IN_TAGS = "<think>"
    """Thoughts hold both words. EvolvingLMMs-Lab/lmms-eval#1100."""
    THINKS_WITHOUT_OPENING = "</think>"
    """The chat template wrote the opening tag. vllm-project/vllm#22507."""
    THINKS_WITHOUT_END = "<think> without end"
    THINKS_IN_BRACKETS = "[THINK]"
    """Magistral."""
    THINKS_IN_CHANNELS = "channels"
    """gpt-oss without a parser."""
    THINKS_IN_CHANNELS_BARE = "channels without tokens"
    """The same where special tokens were dropped: `analysis…assistantfinal…`."""
    THINKS_IN_A_FIELD = "reasoning"
    """A reasoning parser: `reasoning` (vLLM, Ollama), held to the words once it has thought."""
    THINKS_IN_ANOTHER_FIELD = "reasoning_content"
    """SGLang, LiteLLM, DeepSeek."""
    THINKS_IN_PARTS = "thinking parts"
    """Content is a list of thoughts and texts, as Mistral's."""
    ONLY_THINKS = "only reasoning"
    """Content stays empty, all words are in `reasoning`. ollama/ollama#15288, BerriAI/litellm#14917."""
    THINKS_LONG = "long thoughts"
    """3,000 tokens of them: more than a reply has at first."""
    PARTS = "parts"
    """Content is a list of texts."""
    FENCED = "fenced"
    BOLD = "bold"
    BOXED = "boxed"
    IN_JSON = "in JSON"
    WITH_EOS = "end token"
    """The end-of-turn token was not taken off."""
    OTHER_LANGUAGE = "other language"
    LOWER_CASE = "lower case"
    BOTH_WORDS = "both words"
    NEGATES = "negates"
    """NOT CORRECT for INCORRECT, NOT INCORRECT for CORRECT."""
    QUOTES = "quotes"
    """Gives its verdict first and then quotes what was answered, to the end."""
    ALWAYS_CUT = "always cut"
    """After the first word, which is not what the sentence would have said."""
    EMPTY = "empty"
    REFUSES_TO_SAY = "refuses"
    """`refusal` instead of content."""
    FILTERED = "content_filter"
    ABORTED = "abort"
    """vLLM ends a request so when it is shut down."""
    PAGE = "web page"
    """HTML with HTTP 200."""
    ERROR_WITH_200 = "error with 200"
    """OpenRouter reports an upstream failure so."""
    STREAMS = "streams"
    """Server-sent events that nobody asked for."""
    REFUSES_SAMPLING = "refuses sampling"
    """No `temperature`, no `seed`, and `max_completion_tokens`, as OpenAI's reasoning models."""
    SMALL_CONTEXT = "small context"
    """No room for 2,048 tokens of reply."""
    WANTS_A_KEY = "401"
    WRONG_MODEL = "404"
    REDIRECTS = "redirect"


_LABEL = re.compile(r"`(VERDICT-[0-9a-f]+): ")
_THOUGHTS = (
    "Could it be CORRECT? Or is it INCORRECT? Option A, option B; 7 or 12. So the last line would be CORRECT, or INCORRECT."
)
_OPPOSITE = {"CORRECT": "INCORRECT", "INCORRECT": "CORRECT"}
_CHINESE = {"CORRECT": "正确", "INCORRECT": "错误"}
_CHARS_PER_TOKEN = 4
_LONG_THOUGHT_TOKENS = 3000
_SMALL_CONTEXT_TOKENS = 700
_THINKING = {
    Misbehaviour.THINKS_IN_TAGS: "<think>\n{thought}\n</think>\n\n{said}",
    Misbehaviour.THINKS_LONG: "<think>\n{thought}\n</think>\n\n{said}",
    Misbehaviour.THINKS_WITHOUT_OPENING: "{thought}\n</think>\n\n{said}",
    Misbehaviour.THINKS_WITHOUT_END: "<think>\n{thought}\n\n{said}",
    Misbehaviour.THINKS_IN_BRACKETS: "[THINK]{thought}[/THINK]{said}",
    Misbehaviour.THINKS_IN_CHANNELS: (
        "<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final<|message|>{said}<|return|>"
    ),
    Misbehaviour.THINKS_IN_CHANNELS_BARE: "analysis{thought}assistantfinal{said}",
}
_SAID = {
    Misbehaviour.FENCED: "```\n{said}\n```",
    Misbehaviour.BOLD: "**{said}**",
    Misbehaviour.BOXED: "\\boxed{{{said}}}",
    Misbehaviour.WITH_EOS: "{said}</s>",
}
_FIELDS = {
    Misbehaviour.THINKS_IN_A_FIELD: "reasoning",
    Misbehaviour.THINKS_IN_ANOTHER_FIELD: "reasoning_content",
    Misbehaviour.ONLY_THINKS: "reasoning",
}


@dataclass(slots=True)
class JudgeServer:
    """A judge server that misbehaves in one way; use `judge_server`, or `transport` for one without a socket."""

    kind: Misbehaviour
    decide: Callable[[str], str]
    """Gets the prompt, gives what a good judge would say: a word, a letter, a number."""
    models: tuple[str, ...] = ("judge",)
    url: str = "http://judge/v1"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Of the requests so far."""
    headers: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def transport(self) -> httpx.MockTransport:
        """The same without HTTP."""

        def handle(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content) if request.content else None
            status, headers, content = self.respond(request.url.path, body, request.headers)
            return httpx.Response(status, headers=headers, content=content)

        return httpx.MockTransport(handle)

    def respond(
        self, path: str, body: dict[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, content) of one request; a body makes it a chat completion."""
        self.headers.append(headers)
        kind = self.kind
        if kind is Misbehaviour.PAGE:
            return 200, {"content-type": "text/html"}, b"<!DOCTYPE html><html><body>Welcome to the gateway</body></html>"
        if kind is Misbehaviour.REDIRECTS:
            return 307, {"location": "http://elsewhere/v1/chat/completions"}, b""
        if kind is Misbehaviour.WANTS_A_KEY and headers.get("authorization") != "Bearer right-key":
            return _json(401, {"error": {"message": f"Incorrect API key provided: {headers.get('authorization', '')[7:]}"}})
        if path not in ("/v1/models", "/v1/chat/completions"):
            return _json(404, {"detail": "Not Found"})
        if body is None:
            return _json(200, {"object": "list", "data": [{"id": name} for name in self.models]})
        self.bodies.append(body)
        if kind is Misbehaviour.WRONG_MODEL or body["model"] not in self.models:
            return _json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        return self._refusal(body) or self._answer(body)

    def _refusal(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes] | None:
        fields = {"structured_outputs", "guided_choice", "response_format"} & body.keys()
        if self.kind is Misbehaviour.REFUSES_STRUCTURE and fields:
            return _json(400, {"error": {"message": f"Unrecognized request argument supplied: {fields.pop()}"}})
        if self.kind is Misbehaviour.REFUSES_SAMPLING:
            if "max_tokens" in body:
                message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                return _json(400, {"error": {"message": message, "param": "max_tokens"}})
            for name in ("temperature", "seed"):
                if name in body:
                    message = f"Unsupported value: '{name}' does not support {body[name]} with this model."
                    return _json(400, {"error": {"message": message, "param": name}})
        asked = int(body.get("max_tokens", 0))
        if self.kind is Misbehaviour.SMALL_CONTEXT and asked > _SMALL_CONTEXT_TOKENS:
            message = f"This model's maximum context length is 1024 tokens. However, you requested {asked} output tokens."
            return _json(400, {"error": {"message": message}})
        return None

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        kind, prompt = self.kind, str(body["messages"][-1]["content"])
        answer = self.decide(prompt)
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        finish = {Misbehaviour.FILTERED: "content_filter", Misbehaviour.ABORTED: "abort"}.get(kind, "stop")
        room = _CHARS_PER_TOKEN * int(body.get("max_tokens") or body.get("max_completion_tokens") or 4096)
        if kind is Misbehaviour.ERROR_WITH_200:
            return _json(200, {"error": {"message": "Provider returned error", "code": 502}})
        if kind is Misbehaviour.REFUSES_TO_SAY:
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif kind not in (Misbehaviour.EMPTY, Misbehaviour.FILTERED, Misbehaviour.ABORTED):
            content, thought = self._text(body, answer, prompt)
            finish = "length" if len(content) + len(thought) > room or kind is Misbehaviour.ALWAYS_CUT else "stop"
            if kind in _FIELDS:
                message[_FIELDS[kind]] = thought[:room]
            content = content[: max(0, room - len(thought))]
            message["content"] = self._parts(content) or (None if kind in _FIELDS else "")
        answer_json = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": {"total_tokens": 55}}
        if kind is Misbehaviour.STREAMS:
            return (
                200,
                {"content-type": "text/event-stream"},
                f"data: {json.dumps(answer_json)}\n\ndata: [DONE]\n\n".encode(),
            )
        return _json(200, answer_json)

    def _text(self, body: dict[str, Any], answer: str, prompt: str) -> tuple[str, str]:
        """(content, thoughts in a field of their own)."""
        kind = self.kind
        held = self._held(body, answer)
        if kind is Misbehaviour.ONLY_THINKS:
            return "", f"{_THOUGHTS}\n{self._form(answer, prompt)}"
        if kind in _FIELDS:
            return held or self._form(answer, prompt), _THOUGHTS
        if held is not None:
            return held, ""
        said = self._form(answer, prompt)
        times = _LONG_THOUGHT_TOKENS * _CHARS_PER_TOKEN // len(_THOUGHTS) if kind is Misbehaviour.THINKS_LONG else 1
        thought = _THOUGHTS * times
        if kind in _THINKING:
            return _THINKING[kind].format(thought=thought, said=said), ""
        if kind in _SAID:
            return _SAID[kind].format(said=answer), ""
        other = _OPPOSITE.get(answer, "B")
        odd = {
            Misbehaviour.IN_JSON: json.dumps({"answer": answer}),
            Misbehaviour.OTHER_LANGUAGE: _CHINESE.get(answer, "不知道。"),
            Misbehaviour.LOWER_CASE: answer.lower(),
            Misbehaviour.BOTH_WORDS: f"It is {answer}, though one could say {other}.\n{other}",
            Misbehaviour.NEGATES: f"The answer is NOT {other}",
            Misbehaviour.QUOTES: f"{answer}. What was answered is this:\n{prompt.rpartition(': ')[2]}\n{other}",
            Misbehaviour.ALWAYS_CUT: other,
        }
        if kind in odd:
            return odd[kind], ""
        if kind is Misbehaviour.PARTS or answer not in _OPPOSITE:
            return said, ""
        return f"Both were looked at: what was asked, what is known, and what was answered.\n\n{said}", ""

    def _held(self, body: dict[str, Any], answer: str) -> str | None:
        """What it writes if it keeps to a few words; None if it does not."""
        kind = self.kind
        if "guided_choice" in body and kind is Misbehaviour.ONLY_GUIDED_CHOICE:
            return _nearest(answer, body["guided_choice"])
        if "response_format" in body and kind is Misbehaviour.ONLY_JSON_SCHEMA:
            (name, field_schema), *_ = body["response_format"]["json_schema"]["schema"]["properties"].items()
            return json.dumps({name: _nearest(answer, field_schema["enum"])})
        keeps = (Misbehaviour.NONE, Misbehaviour.SMALL_CONTEXT, Misbehaviour.PARTS, Misbehaviour.WANTS_A_KEY, *_FIELDS)
        if "structured_outputs" not in body or kind not in keeps:
            return None
        return _nearest(answer, body["structured_outputs"]["choice"])

    def _form(self, answer: str, prompt: str) -> str:
        """The line that the prompt asks for."""
        label = _LABEL.search(prompt)
        return f"{label[1]}: {answer}" if label is not None else answer

    def _parts(self, content: str) -> Any:
        if self.kind is Misbehaviour.PARTS:
            return [{"type": "text", "text": content[:3]}, {"type": "text", "text": content[3:]}]
        if self.kind is Misbehaviour.THINKS_IN_PARTS:
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHTS}]}
            return [thought, {"type": "text", "text": content}]
        return content


def _nearest(answer: str, choices: Sequence[str]) -> str:
    """A server that is held to words writes one of them, whatever the model would have said."""
    return answer if answer in choices else choices[0]


def _json(status: int, content: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "application/json"}, json.dumps(content).encode()


@contextmanager
def judge_server(
    kind: Misbehaviour, decide: Callable[[str], str], *, models: tuple[str, ...] = ("judge",)
) -> Iterator[JudgeServer]:
    """Serve on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(None)

        def do_POST(self) -> None:
            self._send(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _send(self, body: dict[str, Any] | None) -> None:
            status, headers, content = state.respond(self.path, body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keeps quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = JudgeServer(kind, decide, models=models, url=f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
