"""The way in which Qwen's models write a conversation down: ChatML, with an image between two tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.chat_formats import THINK, ChatFormat, Turns

_START, _END = "<|im_start|>", "<|im_end|>"
_IMAGE_START, _IMAGE_PAD, _IMAGE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
_VIDEO_PAD, _PADDING = "<|video_pad|>", "<|endoftext|>"
_REPLY_START = f"{_START}assistant\n"
_SPECIAL = (
    _PADDING, _START, _END, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", _IMAGE_START, _IMAGE_END, "<|vision_pad|>",
    _IMAGE_PAD, _VIDEO_PAD,
)  # fmt: skip


def _turn(role: str, content: str) -> str:
    return f"{_START}{role}\n{content}{_END}\n"


@dataclass(frozen=True, kw_only=True)
class ChatMl(ChatFormat):
    """A `ChatFormat` in ChatML with Qwen's tokens."""

    reply_end: str = _END
    padding: str = _PADDING
    special_tokens: tuple[str, ...] = _SPECIAL
    # Objects, boxes and quadrangles are things that a model may write.
    never_sampled: tuple[str, ...] = (
        _PADDING, _START, _IMAGE_START, _IMAGE_END, _IMAGE_PAD, _VIDEO_PAD, "<|vision_pad|>",
    )  # fmt: skip
    image_start: str = _IMAGE_START
    image_pad: str = _IMAGE_PAD
    image_end: str = _IMAGE_END
    video_pad: str = _VIDEO_PAD
    chat_template: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chat_template", self.chat_template or _jinja(self.default_system, self.primer))

    def opening(self, turns: Turns) -> str:
        """ChatML of the turns, after the default system message where they have none of their own."""
        has_system = bool(turns) and turns[0][0] == "system"
        system = "" if has_system or self.default_system is None else _turn("system", self.default_system)
        return system + "".join(_turn(role, content) for role, content in turns) + _REPLY_START

    def after_reply(self, turns: Turns) -> str:
        """The end of the reply's line, and ChatML of the turns."""
        return "\n" + "".join(_turn(role, content) for role, content in turns) + _REPLY_START


def _jinja(default_system: str | None, primer: str) -> str:
    first = (
        f"{{% if loop.first and message['role'] != 'system' %}}{_turn('system', default_system)}{{% endif %}}"
        if default_system is not None
        else ""
    )
    # A server is handed back a reply without what its template began it with, as a text or as parts.
    said = "(message['content'] if message['content'] is string else message['content'][0]['text'])"
    begun = (
        f"{{% if message['role'] == 'assistant' and not {said}.startswith('{THINK}') %}}{primer}{{% endif %}}"
        if primer
        else ""
    )
    return (
        "{% for message in messages %}"
        f"{first}{_START}{{{{ message['role'] }}}}\n{begun}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] in ('image', 'image_url') %}}{_IMAGE_START}{_IMAGE_PAD}{_IMAGE_END}"
        f"{{% elif part['type'] == 'video' %}}{_IMAGE_START}{_VIDEO_PAD}{_IMAGE_END}"
        "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
        f"{{% endfor %}}{{% endif %}}{_END}\n"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{_REPLY_START}{primer}{{% endif %}}"
    )
