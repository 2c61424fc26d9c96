"""Find conversations that training would silently drop, cut, or break on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.images import ImageFile, UnreadableImage
from agent.messages import IMAGE_PLACEHOLDER
from agent.protocol import Malformed, parse_action

_PATCH_PX = 28
_TOKENS_PER_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One conversation and what is wrong with it."""

    source: str
    """File and position, such as `sft_part_0.json[17]`."""
    reason: str


def num_image_tokens(width_px: int, height_px: int, *, max_pixels: int, min_pixels: int = 3_136) -> int:
    """Tokens that Qwen2.5-VL spends on an image: one per 28x28 px after resizing into the pixel limits.

    Source: transformers 5.5.4, models/qwen2_vl/image_processing_qwen2_vl.py (smart_resize).
    """
    height = round(height_px / _PATCH_PX) * _PATCH_PX
    width = round(width_px / _PATCH_PX) * _PATCH_PX
    if height * width > max_pixels:
        scale = math.sqrt(height_px * width_px / max_pixels)
        height = max(_PATCH_PX, math.floor(height_px / scale / _PATCH_PX) * _PATCH_PX)
        width = max(_PATCH_PX, math.floor(width_px / scale / _PATCH_PX) * _PATCH_PX)
    elif height * width < min_pixels:
        scale = math.sqrt(min_pixels / (height_px * width_px))
        height = math.ceil(height_px * scale / _PATCH_PX) * _PATCH_PX
        width = math.ceil(width_px * scale / _PATCH_PX) * _PATCH_PX
    return height * width // _PATCH_PX**2


def check_conversation(
    conversation: Mapping[str, Any],
    *,
    images_directory: Path,
    cutoff_len: int,
    image_max_pixels: int,
    count_tokens: Callable[[str], int],
) -> Iterator[str]:
    """Yield every reason why this conversation cannot be trained on as it is; nothing if it can."""
    messages = conversation.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "it has no `messages`"
        return
    if not all(isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages):
        yield "a message has no text `content`"
        return
    turns = [message for message in messages if message.get("role") != "system"]
    expected = ["user", "assistant"] * math.ceil(len(turns) / 2)
    roles = [message.get("role") for message in turns]
    if roles != expected[: len(roles)] or len(roles) % 2:
        yield f"roles are {', '.join(map(str, roles))}; LLaMA-Factory drops what is not user, assistant, user, …"
    paths = conversation.get("images") or []
    placeholders = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in messages)
    if placeholders != len(paths):
        yield f"{placeholders} {IMAGE_PLACEHOLDER} placeholders for {len(paths)} images"
    for number, message in enumerate(turns):
        if message.get("role") == "assistant":
            action = parse_action(message["content"])
            if isinstance(action, Malformed):
                yield f"turn {number} holds no action: {action.reason}"
    image_tokens = 0
    for path in paths:
        try:
            size = ImageFile((images_directory / path).read_bytes()).size
        except (OSError, UnreadableImage) as error:
            yield f"image {path} cannot be read: {error}"
            return
        image_tokens += num_image_tokens(*size, max_pixels=image_max_pixels) + 2
    text = "\n".join(message["content"] for message in messages)
    # A token is at least one byte of text, so most conversations need not be tokenised to be seen to fit.
    upper_bound = len(text.encode()) + image_tokens + _TOKENS_PER_MESSAGE * len(messages)
    if upper_bound > cutoff_len:
        length = count_tokens(text) + image_tokens + _TOKENS_PER_MESSAGE * len(messages)
        if length > cutoff_len:
            where = "inside an image, which ends training" if paths else "short"
            yield f"about {length:,} tokens; cutoff_len {cutoff_len:,} would cut it {where}"


def check_conversations(
    conversations: Sequence[Mapping[str, Any]], *, source: str, **settings: Any
) -> tuple[list[Mapping[str, Any]], list[Problem]]:
    """Split conversations into those that can be trained on and the problems of the others."""
    good: list[Mapping[str, Any]] = []
    problems: list[Problem] = []
    for number, conversation in enumerate(conversations):
        if not isinstance(conversation, dict):
            problems.append(Problem(f"{source}[{number}]", "it is no JSON object"))
            continue
        reasons = list(check_conversation(conversation, **settings))
        if reasons:
            problems.append(Problem(f"{source}[{number}]", "; ".join(reasons)))
        else:
            good.append(conversation)
    return good, problems
