"""A message: role, text, and the images its `<image>` placeholders stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent.images import ImageFile, ImageRule, UnreadableImage
from code_sandbox.pictures import BROKEN

IMAGE_PLACEHOLDER = "<image>"
Role = Literal["system", "user", "assistant"]
_ROLES = ("system", "user", "assistant")
_SPECIAL_TOKEN = re.compile(r"<\|([A-Za-z0-9_]+)\|>")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The number of placeholders always equals the number of images."""

    role: Role
    text: str
    images: tuple[ImageFile, ...] = ()

    def __post_init__(self) -> None:
        placeholders = self.text.count(IMAGE_PLACEHOLDER)
        if placeholders != len(self.images):
            raise ValueError(
                f"a {self.role} message has {placeholders} {IMAGE_PLACEHOLDER} placeholders and {len(self.images)} "
                f"images; they must be equal. The text starts {self.text[:80]!r}"
            )

    def parts(self) -> Iterator[str | ImageFile]:
        """Text and images in reading order, empty texts left out."""
        images = iter(self.images)
        for index, text in enumerate(self.text.split(IMAGE_PLACEHOLDER)):
            if index:
                yield next(images)
            if text:
                yield text


def escape(text: str) -> str:
    """Make foreign text harmless: no image placeholder, special token of the tokenizer or half surrogate is left in it."""
    text = text.encode("utf-8", "replace").decode()
    return _SPECIAL_TOKEN.sub(r"<| \1 |>", text).replace(IMAGE_PLACEHOLDER, "[image]")


def shown(message: Message, rule: ImageRule) -> Message:
    """The message with its images as a model sees them. Blocks while they are decoded.

    Raises:
        UnreadableImage: An image is none.
    """
    return replace(message, images=tuple(rule.apply(image) for image in message.images))


_UNSHOWABLE = (UnreadableImage, *BROKEN, MemoryError, RuntimeError)


def shown_if_readable(message: Message, rule: ImageRule | None) -> Message:
    """Does what `shown` does, but leaves out an image that cannot be read and says so in its place.

    What a program has drawn is its own affair: whatever a decoder makes of it is told to the model and ends no episode.
    Without a rule images stay as they are, if they can be read.
    """
    texts = message.text.split(IMAGE_PLACEHOLDER)
    text, images = texts[0], []
    for image, behind in zip(message.images, texts[1:], strict=True):
        try:
            if rule is None:
                image.check(quickly=True)
            images.append(image if rule is None else rule.apply(image))
            text += IMAGE_PLACEHOLDER
        except _UNSHOWABLE as error:
            text += escape(f"[an image was dropped: {str(error) or type(error).__name__}]")
        text += behind
    return Message(message.role, text, tuple(images))


def messages_from_rows(rows: Sequence[Mapping[str, Any]], images: Sequence[ImageFile]) -> tuple[Message, ...]:
    """Build messages from `{role, content}` rows whose `<image>` placeholders take the images in order.

    What else the texts hold is made harmless, as an observation is: a row is foreign text too.

    Raises:
        ValueError: An unknown role, content that is no string, or a wrong number of images.
    """
    left = list(images)
    messages = []
    for number, row in enumerate(rows):
        role, content = row.get("role"), row.get("content")
        if role not in _ROLES:
            raise ValueError(f"message {number} has role {role!r}; expected one of {', '.join(_ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"message {number} has content of type {type(content).__name__}; expected a string")
        count = content.count(IMAGE_PLACEHOLDER)
        if count > len(left):
            raise ValueError(f"message {number} needs {count} images, but only {len(left)} of {len(images)} are left")
        text = IMAGE_PLACEHOLDER.join(escape(part) for part in content.split(IMAGE_PLACEHOLDER))
        messages.append(Message(role, text, tuple(left[:count])))
        del left[:count]
    if left:
        raise ValueError(f"{len(left)} of {len(images)} images have no {IMAGE_PLACEHOLDER} placeholder in the messages")
    return tuple(messages)
