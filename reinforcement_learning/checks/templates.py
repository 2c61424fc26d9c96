"""The chat template of a model's folder, held against what a rollout writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.chat_formats import ChatFormat

_SYSTEM = "You look at images."
_QUESTION, _REPLY, _OBSERVATION = "What is this?", "<think>\nSmall.\n</think>\n\nI look closer.", "Here is a crop."
_SHOWN = 60


def difference(template: str, chat_format: ChatFormat) -> str:
    """Where the text of an episode of two turns differs; empty if it does not, with a system message and without one.

    Args:
        template: The model's own, in Jinja.
        chat_format: In which rollouts are written.
    """
    for system, when in ((_SYSTEM, "with a system message"), (None, "without a system message")):
        try:
            own = _by_template(template, system)
        except Exception as error:  # noqa: BLE001 - a template is a program that raises whatever it likes
            return f"{when} it breaks on a conversation with images ({type(error).__name__}: {error})"
        ours = _by_format(chat_format, system)
        if own != ours:
            at = next((n for n, (a, b) in enumerate(zip(own, ours, strict=False)) if a != b), min(len(own), len(ours)))
            before, there, here = ours[max(0, at - _SHOWN) : at], own[at : at + _SHOWN], ours[at : at + _SHOWN]
            return f"{when}, behind {before!r}, it has {there!r} where rollouts have {here!r}"
    return ""


def _by_template(template: str, system: str | None) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    def said(role: str, text: str, *, image: bool = False) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}

    conversation: Sequence[dict[str, Any]] = [
        *([said("system", system)] if system is not None else []),
        said("user", _QUESTION, image=True),
        said("assistant", _REPLY),
        said("user", _OBSERVATION, image=True),
    ]
    (text,), _ = render_jinja_template([conversation], chat_template=template, add_generation_prompt=True)
    return str(text)


def _by_format(chat_format: ChatFormat, system: str | None) -> str:
    image = chat_format.image(1)
    opening = [("system", system)] if system is not None else []
    return (
        chat_format.opening([*opening, ("user", image + _QUESTION)])
        + _REPLY
        + chat_format.reply_end
        + chat_format.after_reply([("user", image + _OBSERVATION)])
        + chat_format.primer
    )
