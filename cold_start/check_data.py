"""What can be said about a conversation from its text alone; LLaMA-Factory has the last word, in `llama_factory`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.messages import IMAGE_PLACEHOLDER, escape
from agent.protocol import Malformed, parse_action

_ROLES = ("system", "user", "assistant")
_MOST_CHARS = 4_000_000
"""Of one message, far beyond any context; the tokenizer would take minutes and gigabytes for it."""
# LLaMA-Factory counts these in text and wants a film or a sound for each; we have none.
_OTHER_MEDIA = ("<video>", "<audio>")
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]+\|>")


@dataclass(frozen=True, slots=True)
class Problem:
    """One conversation and what is wrong with it."""

    source: str
    """File and position, such as `sft_part_0.json[17]`."""
    reason: str


@dataclass(frozen=True, slots=True)
class CleanConversation:
    """A conversation as it is trained on."""

    messages: list[dict[str, str]]
    """`{role, content}`; in what is not the model's, special tokens are escaped as in an observation."""
    images: list[str]
    """Absolute paths."""
    num_escaped: int
    """Messages in which a special token was escaped."""


def conversation_problems(conversation: Any) -> list[str]:
    """Every reason, seen in the text alone, why this conversation cannot be trained on; none if there is no such reason."""
    if not isinstance(conversation, dict):
        return ["it is no JSON object"]
    messages = conversation.get("messages")
    if not isinstance(messages, list) or not messages:
        return ["it has no `messages`"]
    if shapes := list(_shape_problems(messages)):
        return shapes
    problems = [*_turn_problems(messages), *_text_problems(messages)]
    paths = conversation.get("images")
    if paths is None:
        paths = []
    if isinstance(paths, list):
        problems += _image_problems(messages, paths)
    else:
        problems.append(f"`images` is a {type(paths).__name__}; expected a list of paths")
    return problems


def _shape_problems(messages: list[Any]) -> Iterator[str]:
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            yield f"message {number} has no text `content`"
        elif message.get("role") not in _ROLES:
            yield f"message {number} has role {message.get('role')!r}; LLaMA-Factory drops what is not {', '.join(_ROLES)}"
        elif len(message["content"]) > _MOST_CHARS:
            yield f"message {number} has {len(message['content']):,} characters; at most {_MOST_CHARS:,} are looked at"
        elif not _is_unicode(message["content"]):
            yield f"message {number} holds half a surrogate pair, which no tokenizer takes"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _turn_problems(messages: list[dict[str, str]]) -> Iterator[str]:
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    if not roles or roles != (["user", "assistant"] * len(roles))[: len(roles)] or len(roles) % 2:
        where = "; a system message may stand first only" if "system" in roles else ""
        names = ", ".join(message["role"] for message in messages)
        yield f"roles are {names}; LLaMA-Factory drops what is not user, assistant, user, …{where}"


def _text_problems(messages: list[dict[str, str]]) -> Iterator[str]:
    turn = -1
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "system":
            if IMAGE_PLACEHOLDER in content:
                yield f"the system message holds {IMAGE_PLACEHOLDER}, which LLaMA-Factory neither counts nor replaces there"
            continue
        turn += 1
        if not content.strip():
            yield f"message {number} is empty"
            continue
        for placeholder in _OTHER_MEDIA:
            if placeholder in content:
                bare = placeholder[1:-1]
                yield f"message {number} holds {placeholder}, for which LLaMA-Factory wants a file; write [{bare}]"
        if role == "assistant":
            if token := _SPECIAL_TOKEN.search(content):
                yield f"turn {turn} holds {token[0]}, a control token of the tokenizer, which the model must not learn"
            if isinstance(action := parse_action(content), Malformed):
                yield f"turn {turn} holds no action: {action.reason}"


def _image_problems(messages: list[dict[str, str]], paths: list[Any]) -> Iterator[str]:
    for number, path in enumerate(paths):
        if not isinstance(path, str) or not path:
            yield f"image {number} is {_described(path)}; expected a path"
        elif not _is_unicode(path) or "\0" in path:
            yield f"image {number} has a path that is no file name"
    placeholders = sum(m["content"].count(IMAGE_PLACEHOLDER) for m in messages if m["role"] != "system")
    if placeholders != len(paths):
        yield f"{placeholders} {IMAGE_PLACEHOLDER} placeholders for {len(paths)} images"


def _described(value: Any) -> str:
    return {"NoneType": "null", "dict": "an object", "str": "an empty text"}.get(type(value).__name__, repr(value)[:80])


def clean(conversation: Mapping[str, Any], images_directory: Path) -> CleanConversation:
    """The conversation as it is trained on.

    What the model reads is escaped as `agent.messages.escape` does for observations, the placeholders of its images left
    alone; what the model writes stays as it is.

    Args:
        conversation: One without `conversation_problems`.
        images_directory: Where relative paths start.
    """
    messages, num_escaped = [], 0
    for message in conversation["messages"]:
        content = message["content"]
        if message["role"] != "assistant":
            content = IMAGE_PLACEHOLDER.join(escape(text) for text in content.split(IMAGE_PLACEHOLDER))
        num_escaped += content != message["content"]
        messages.append({"role": message["role"], "content": content})
    images = [str(images_directory / path) for path in conversation.get("images") or []]
    return CleanConversation(messages, images, num_escaped)
