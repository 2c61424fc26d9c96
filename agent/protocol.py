"""The tags between model and loop. The only module that knows them.

Source of every literal here: DeepEyesV2 0373e6e, envs/deepeyesv2/{deepeyesv2,prompt}.py. Released checkpoints and data
depend on them, so a change is a change of protocol.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, Message, escape
from agent.search import WebResult

STOP_STRINGS = ("</code>", "</tool_call>")
"""Generation stops here; the string stays in the reply. End of sequence stops it too."""
PYTHON = "python"
"""Name of the tool that `<code>` calls."""

_TAG = re.compile(r"<(/think|think|code|tool_call|answer)>")
_FENCE_OPENED = re.compile(r"```python[^\S\n]*\n")
_FENCE_CLOSED = re.compile(r"^[^\S\n]*```[^\S\n]*$", re.MULTILINE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NOT_JSON = "Out of range float values are not JSON compliant"


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The model is done."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool run."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """The model wrote something that is no action."""

    reason: str
    observation: str | None = None
    """What the model is told, if the episode goes on; None ends it."""


Action = FinalAnswer | ToolCall | Malformed


def parse_action(reply: str) -> Action:
    """Read the last complete action out of one reply. Never raises.

    The reply is read from left to right: what stands inside `<think>` does nothing, and inside an element nothing but
    its own end counts. A `<think>` that is never closed hides nothing. agent/README.md lists how the odd cases are
    decided, and tests/unit/agent/golden holds each.

    Args:
        reply: The primer and what the model wrote after it.
    """
    return parse_action_and_place(reply)[0]


def parse_action_and_place(reply: str) -> tuple[Action, slice]:
    """What `parse_action` reads, and where it stands: `reply[place]` is the code, call or answer, as it was written.

    Of what is no action the place is that of the broken element; empty if there is none.
    """
    action: Action = Malformed("neither an answer, nor code, nor a tool call")
    place = slice(0, 0)
    for name, start, end in _elements(reply):
        found, inside = _READERS[name](reply[start:end])
        # What is broken does not undo what was complete; the model is told only if there is nothing else to do.
        if not isinstance(found, Malformed) or isinstance(action, Malformed):
            action, place = found, slice(start + inside.start, start + inside.stop)
    return action, place


def _elements(reply: str) -> list[tuple[str, int, int]]:
    """(name, start and end of its body) of the complete elements outside thinking, in order."""
    found: list[tuple[str, int, int]] = []
    position = 0
    unclosed: set[str] = set()
    while (tag := _TAG.search(reply, position)) is not None:
        name, position = tag[1], tag.end()
        if name == "/think":
            found.clear()  # the reply began inside thinking, as after a primer
            continue
        if name in unclosed:
            continue
        closing = reply.find(f"</{name}>", position)
        if closing < 0:
            unclosed.add(name)
            continue
        if name != "think":
            found.append((name, position, closing))
        position = closing + len(name) + 3
    return found


def _read_answer(body: str) -> tuple[Action, slice]:
    begun = body.rpartition("<answer>")[2]  # an answer that was begun twice is the second one
    text = begun.strip()
    if not text:
        return Malformed("an empty answer"), slice(0, len(body))
    start = len(body) - len(begun.lstrip())
    return FinalAnswer(text), slice(start, start + len(text))


def _read_code(body: str) -> tuple[Action, slice]:
    """The last Python block, up to the last fence after it: a fence inside a string does not end it."""
    closings = [match.start() for match in _FENCE_CLOSED.finditer(body)]
    start = -1
    for opening in _FENCE_OPENED.finditer(body):
        # What looks like an opening before the block was closed is a string in the program.
        after = bisect.bisect_left(closings, start)
        if start < 0 or (after < len(closings) and closings[after] < opening.start()):
            start = opening.end()
    if start < 0:
        return Malformed("<code> without a ```python block"), slice(0, len(body))
    end = closings[-1] if closings and closings[-1] >= start else body.rfind("```", start)
    if end < 0:
        return Malformed("<code> with a ```python block that is not closed"), slice(0, len(body))
    code = body[start:end].removesuffix("\n")
    return ToolCall(PYTHON, {"code": code}), slice(start, start + len(code))


def _read_tool_call(body: str) -> tuple[Action, slice]:
    place = slice(0, len(body))
    try:
        call = json.loads(body, strict=False)
        # Half a surrogate pair can be written in JSON, but neither sent, hashed nor stored; NaN is no JSON at all.
        call = json.loads(json.dumps(call, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        # From Python 3.12 on, the number follows; what a model reads is the same everywhere.
        told = _NOT_JSON if str(error).startswith(_NOT_JSON) else error
        return Malformed("bad JSON in <tool_call>", f"Error: Invalid tool call format: {told}"), place
    name = call.get("name") if isinstance(call, dict) else None
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        told = 'Error: Invalid tool call format: expected {"name": string, "arguments": object}'
        return Malformed("a <tool_call> of the wrong shape", told), place
    return ToolCall(name, arguments or {}), place


_READERS = {"answer": _read_answer, "code": _read_code, "tool_call": _read_tool_call}


def render_code_observation(*, stdout: str, stderr: str, images: Sequence[ImageFile] = ()) -> Message:
    """What the model sees after a cell."""
    body = f"Code execution result:\nstdout:\n```\n{escape(stdout)}\n```\n\nstderr:\n```\n{escape(stderr)}\n```\n\n"
    if images:
        body += "Images:\n" + "\n".join([IMAGE_PLACEHOLDER] * len(images))
    return Message("user", body.strip(), tuple(images))


def render_search_observation(query: str, results: Sequence[WebResult]) -> Message:
    """What the model sees after a text search."""
    blocks = []
    for number, result in enumerate(results, start=1):
        lines = [f"{number}. [{escape(result.title)}]({escape(result.link)})"]
        if result.date:
            lines.append(f"Date published: {escape(result.date)}")
        if result.snippet:
            lines.append(escape(result.snippet))
        blocks.append("\n".join(lines))
    head = f"A Google search for '{escape(query)}' found {len(results)} results:"
    return render_tool_response("\n\n".join([head, "## Web Results", *blocks]))


def render_image_search_observation(titles: Sequence[str], images: Sequence[ImageFile]) -> Message:
    """What the model sees after an image search: one thumbnail and title per result.

    Raises:
        ValueError: Titles and images differ in number.
    """
    if len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; each result has both")
    blocks = [f"{number}. {IMAGE_PLACEHOLDER}\n[{escape(title)}]" for number, title in enumerate(titles, start=1)]
    head = f"A Google image search for the image found {len(titles)} results:"
    return render_tool_response("\n\n".join([head, "## Web Results", *blocks]), images)


def render_tool_response(content: str, images: Sequence[ImageFile] = ()) -> Message:
    """What the model sees after any other tool. Foreign text must be escaped already; it cannot end the response."""
    content = re.sub(r"<(/?tool_response)>", r"< \1 >", content)
    return Message("user", f"<tool_response>\n{content}\n</tool_response>", tuple(images))


def bound_observation(message: Message, *, max_chars: int, max_images: int) -> Message:
    """Cut what is too long out of the middle of its longest texts, and images beyond the limit; both leave a mark.

    Every observation passes here, those of other people's tools too: what they forgot to escape is made harmless.
    """
    images = message.images[:max_images]
    texts = message.text.split(IMAGE_PLACEHOLDER)
    texts[len(images) :] = ["[an image was left out]".join(texts[len(images) :])]
    surplus = sum(map(len, texts)) - max_chars
    while surplus > 0:
        longest = max(range(len(texts)), key=lambda index: len(texts[index]))
        text = texts[longest]
        keep = max(len(text) - surplus, max_chars // (2 * len(texts)))
        if keep >= len(text):
            break
        mark = f"\n[… {len(text) - keep:,} characters were left out …]\n"
        texts[longest] = text[: keep - keep // 4] + mark + text[len(text) - keep // 4 :]
        surplus -= len(text) - keep
    return Message(message.role, IMAGE_PLACEHOLDER.join(map(escape, texts)), images)


def render_error_observation(text: str) -> Message:
    """What the model sees after a call that could not be made."""
    return Message("user", escape(text))


FormatRule = Literal["think", "code", "tool_call"]


def format_errors(
    replies: Sequence[str], *, tags: Sequence[FormatRule] = ("think", "code"), first_answer_only: bool = False
) -> list[str]:
    """Check an episode's replies against the published format rules, on the model's own text only.

    Tags must be balanced, after the last `</think>` there must be as many `<answer>` as `</answer>`, at least one, and
    not empty. A text that does not begin with `<think>` is read as if it did, as published: an episode without any
    thinking is then unbalanced.

    Args:
        replies: What the model wrote, turn by turn.
        tags: That must be balanced.
        first_answer_only: The first answer must not be empty, as published; else one that is not empty will do.

    Returns:
        What is wrong; empty means well formed.

    Source: DeepEyesV2 0373e6e, reward_score/deepeyesv2.py:122-133; there tool output was counted too.
    """
    text = "\n".join(replies)
    if not text.startswith("<think>"):
        text = "<think>" + text
    errors = []
    for tag in tags:
        opened, closed = text.count(f"<{tag}>"), text.count(f"</{tag}>")
        if opened != closed:
            errors.append(f"{opened} <{tag}> but {closed} </{tag}>")
    tail = text.rpartition("</think>")[2]
    opened, closed = tail.count("<answer>"), tail.count("</answer>")
    if opened != closed or opened == 0:
        errors.append(f"{opened} <answer> and {closed} </answer> after the last </think>")
    elif not any(answer.strip() for answer in _ANSWER.findall(tail)[: 1 if first_answer_only else None]):
        errors.append("an empty answer")
    return errors
