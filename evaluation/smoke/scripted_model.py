"""A model server made of a function, over real HTTP: for tests, for the smoke suite, and for trying a set-up without a
model.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NotRequired, TypedDict


class Part(TypedDict):
    """A part of a message with images."""

    type: str
    text: NotRequired[str]


class ChatMessage(TypedDict):
    """A message of a request."""

    role: str
    content: str | list[Part]


class Choices(TypedDict):
    """What a reply is bound to."""

    choice: list[str]


class ChatRequest(TypedDict):
    """The body of a request to `/chat/completions`, as far as it is looked at here."""

    messages: list[ChatMessage]
    structured_outputs: NotRequired[Choices]
    seed: NotRequired[int | None]
    stream: NotRequired[bool]


Answer = Callable[[list[ChatMessage]], str | int]
_USAGE = {"completion_tokens": 5, "prompt_tokens": 50, "total_tokens": 55}
_PIECE_CHARS = 4
"""About a token."""
Respond = Callable[[ChatRequest], str | int]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or what follows the headers waits 40 ms for their receipt

    def send(self, status: int, content: Mapping[str, object]) -> None:
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def stream(self, events: Iterator[str], pause_s: float) -> None:
        """Server-sent events; a client that has gone away is none of our business."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for event in events:
                time.sleep(pause_s)
                self.wfile.write(f"data: {event}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@contextmanager
def request_server(
    respond: Respond,
    *,
    models: tuple[str, ...] = ("judge", "m"),
    port: int = 0,
    usage: dict[str, int] | None = None,
    pause_s: float = 0.0,
) -> Iterator[str]:
    """Serve chat completions on loopback, in threads.

    Args:
        respond: Gets the request's body; returns a text, or an HTTP status to fail with.
        models: Names that `/models` lists.
        port: 0 is any that is free.
        usage: Tokens that every answer counts.
        pause_s: Before each piece of an answer that is streamed.

    Yields:
        The base URL, with `/v1`.
    """

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.send(200, {"data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = respond(body)
            if isinstance(said, int):
                self.send(said, {"error": "no"})
                return
            if body.get("stream"):
                self.stream(_stream_events(said, usage or _USAGE), pause_s)
                return
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            self.send(200, {"choices": [choice], "usage": usage or _USAGE})

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _stream_events(text: str, usage: dict[str, int]) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARS):
        yield json.dumps({"choices": [{"delta": {"content": text[start : start + _PIECE_CHARS]}}]})
    yield json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
    yield "[DONE]"


@contextmanager
def model_server(answer: Answer, *, port: int = 0) -> Iterator[str]:
    """`request_server` for a function of the messages alone."""
    with request_server(lambda body: answer(body["messages"]), port=port) as url:
        yield url


_LOOK = (
    "<think>I look closer.</think>\n<code>\n```python\nwidth, height = image_1.size\n"
    "display(image_1.crop((0, 0, width // 2, height // 2)))\n```\n</code>"
)
_COUNT = "<think>I count.</think>\n<code>\n```python\nprint(len(image_1.getcolors(99999)))\n```\n</code>"
_MISTAKE = "<think>I try.</think>\n<code>\n```python\nprint(undefined_name)\n```\n</code>"
_SEARCH = '<think>I search.</think>\n<tool_call>{"name": "search", "arguments": {"query": "which colour"}}</tool_call>'
_FIRST_STEPS = (_LOOK, _COUNT, _MISTAKE, _SEARCH, "", "")
_OPTION = re.compile(r"^\(?([A-E])[.)]\s*(.+)$", re.MULTILINE)


def scripted_reply(body: ChatRequest) -> str:
    """A model that behaves in every way there is, the same for a question every time: it crops, counts, errs, searches,
    answers at once, or forgets its tags. It also judges, so that benchmarks which need a judge can be scored.
    """
    messages = body["messages"]
    if "structured_outputs" in body:
        return str(body["structured_outputs"]["choice"][_number(messages) % 2])
    if len(messages) == 1:
        # A judge whose reply could not be read is asked again with another seed, and finds another form then.
        again = (body.get("seed") or 0) // 1000
        return ("B", "0")[again % 2 - 1] if again else _judge(str(messages[0]["content"]))
    question = _text(messages[1])
    steps = [message for message in messages if message["role"] == "assistant"]
    first = _FIRST_STEPS[_number(messages[:2]) % len(_FIRST_STEPS)]
    if first and not steps and "<code>" in _text(messages[0]):
        return first
    answer = _answer(question)
    if _number(messages[:2]) % 11 == 0:
        return f"I believe it is {answer}"
    return f"<think>So it is.</think>\n<answer>{answer}</answer>"


def _number(messages: list[ChatMessage]) -> int:
    return zlib.crc32("".join(map(_text, messages)).encode())


def _text(message: ChatMessage) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _answer(question: str) -> str:
    options = _OPTION.findall(question)
    if options:
        return str(options[zlib.crc32(question.encode()) % len(options)][0])
    return ("red", "14", "12", "blue", "yes")[zlib.crc32(question.encode()) % 5]


def _judge(prompt: str) -> str:
    if '"score"' in prompt:
        key = "extract_answer" if '"extract_answer"' in prompt else "extracted_answer"
        return json.dumps({key: "4", "score": zlib.crc32(prompt.encode()) % 2})
    if "capital letters" in prompt or "the letter of that option" in prompt:
        return "ABCD"[zlib.crc32(prompt.encode()) % 4]
    numbers = re.findall(r"\d+(?:\.\d+)?", prompt.rpartition(": ")[2])
    return numbers[-1] if numbers else "null"
