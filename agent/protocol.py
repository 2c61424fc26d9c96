"""The tags between model and loop. The only module that knows them.

Source of every literal here: DeepEyesV2 0373e6e, envs/deepeyesv2/{deepeyesv2,prompt}.py. Released checkpoints and data
depend on them, so a change is a change of protocol.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, Message, escape

STOP_STRINGS = ("</code>", "</tool_call>")
"""Generation stops here; the string stays in the reply. End of sequence stops it too."""
PRIMER = "<think>"
"""What released checkpoints are given at the start of each reply that follows an observation."""
MAX_OBSERVATION_IMAGES = 10
PYTHON = "python"
"""Name of the tool that `<code>` calls."""

_CODE = re.compile(r"<code>(.*?)</code>", re.DOTALL)
_FENCE = re.compile(r"```python\n(.*?)\n?```", re.DOTALL)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


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
    """Read the action out of one reply. Never raises.

    Only text after the last `</think>` counts, so that tags quoted while thinking do nothing. In order: the last
    non-empty `<answer>`, the last `<code>` with a ```` ```python ```` block, the last `<tool_call>`.
    """
    acting = reply.rpartition("</think>")[2]
    answers = [text for text in _ANSWER.findall(acting) if text.strip()]
    if answers:
        return FinalAnswer(answers[-1].strip())
    codes = _CODE.findall(acting)
    if codes:
        blocks = _FENCE.findall(codes[-1])
        if blocks:
            return ToolCall(PYTHON, {"code": blocks[-1]})
        return Malformed("<code> without a ```python block")
    calls = _TOOL_CALL.findall(acting)
    if calls:
        return _parse_tool_call(calls[-1])
    return Malformed("neither an answer, nor code, nor a tool call")


def _parse_tool_call(text: str) -> Action:
    try:
        call = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        return Malformed("bad JSON in <tool_call>", f"Error: Invalid tool call format: {error}")
    name = call.get("name") if isinstance(call, dict) else None
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        return Malformed(
            "a <tool_call> of the wrong shape",
            'Error: Invalid tool call format: expected {"name": string, "arguments": object}',
        )
    return ToolCall(name, arguments or {})


def render_code_observation(*, stdout: str, stderr: str, images: Sequence[ImageFile] = ()) -> Message:
    """What the model sees after a cell. At most 10 images are shown."""
    shown = tuple(images[:MAX_OBSERVATION_IMAGES])
    body = f"Code execution result:\nstdout:\n```\n{escape(stdout)}\n```\n\nstderr:\n```\n{escape(stderr)}\n```\n\n"
    if shown:
        body += "Images:\n" + "\n".join([IMAGE_PLACEHOLDER] * len(shown))
    return Message("user", body.strip(), shown)


@dataclass(frozen=True, kw_only=True, slots=True)
class WebResult:
    """One line of search results."""

    title: str
    link: str = ""
    snippet: str = ""
    date: str = ""


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
    content = "\n\n".join([head, "## Web Results", *blocks])
    return Message("user", f"<tool_response>\n{content}\n</tool_response>")


def render_image_search_observation(titles: Sequence[str], images: Sequence[ImageFile]) -> Message:
    """What the model sees after an image search: one thumbnail and title per result.

    Raises:
        ValueError: Titles and images differ in number.
    """
    if len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; each result has both")
    shown = tuple(images[:MAX_OBSERVATION_IMAGES])
    blocks = [
        f"{number}. {IMAGE_PLACEHOLDER}\n[{escape(title)}]"
        for number, (title, _) in enumerate(zip(titles, shown, strict=False), start=1)
    ]
    head = f"A Google image search for the image found {len(shown)} results:"
    content = "\n\n".join([head, "## Web Results", *blocks])
    return Message("user", f"<tool_response>\n{content}\n</tool_response>", shown)


def render_error_observation(text: str) -> Message:
    """What the model sees after a call that could not be made."""
    return Message("user", escape(text))


FormatRule = Literal["think", "code", "tool_call"]


def format_errors(replies: Sequence[str], *, tags: Sequence[FormatRule] = ("think", "code")) -> list[str]:
    """Check an episode's replies against the published format rules, on the model's own text only.

    Tags must be balanced, after the last `</think>` there must be as many `<answer>` as `</answer>`, at least one, and
    not empty. A text that does not begin with `<think>` is read as if it did, as published: an episode without any
    thinking is then unbalanced.

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
    elif not any(answer.strip() for answer in _ANSWER.findall(tail)):
        errors.append("an empty answer")
    return errors
