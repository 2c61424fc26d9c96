"""How a judge server wants to be asked, as far as it has shown: which of several words it can be held to, and how.

Nothing is asked beforehand. A request that is refused, or a reply that does not keep to the words, shows it at once.
Sources: vLLM 0.28, vllm/entrypoints/openai/chat_completion/protocol.py (`structured_outputs`; unknown fields are taken in
silence); vLLM up to 0.11 for `guided_choice`; OpenAI's chat completions for `response_format` with a schema, which SGLang,
llama.cpp, Ollama and LM Studio know as well, and for `max_completion_tokens`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from judge.replies import JudgeReply
from serving import refusals

Spelling = Literal["choice", "guided_choice", "json_schema", "none"]
SPELLINGS: tuple[Spelling, ...] = ("choice", "guided_choice", "json_schema", "none")
FIELDS = {"choice": "structured_outputs", "guided_choice": "guided_choice", "json_schema": "response_format"}
_HELD_TOKENS = 16
"""Enough for the longest word in any tokenizer, for a server that writes nothing else."""
_HELD_JSON_TOKENS = 64
_IGNORED_TO_BELIEVE = 3
"""In a row, of a server that has kept to the words before; one that never has is believed at its first reply."""
_TOO_MUCH_ROOM = re.compile(
    r"max(?:_completion|_new)?_tokens.{0,40}(?:too large|exceed|at most|less than|greater than)", re.IGNORECASE | re.DOTALL
)
_ABOUT_THE_MODEL = re.compile(
    r"no such model|model.{0,80}(?:not (?:found|exist)|does not exist|unknown|invalid)|api.?key", re.IGNORECASE | re.DOTALL
)
_log = logging.getLogger(__name__)


def is_too_long(status: int, text: str) -> bool:
    """Whether a refusal says that the question, or the room for its reply, is more than the model's context holds."""
    too_much = status in (400, 422) and _TOO_MUCH_ROOM.search(text) is not None
    return status == 413 or too_much or refusals.is_too_long(status, text)


@dataclass(slots=True)
class Manners:
    """The manners of one server."""

    url: str
    spelling: Spelling = "choice"
    """How it is held to a few words; `none` once it has shown that it is not."""
    needs_room: bool = False
    """It thinks before it writes: a reply held to a few words needs as much room as any."""
    tokens_field: str = "max_tokens"
    left_out: set[str] = field(default_factory=set)
    """Fields that it refuses."""
    lessons: int = 0
    """How often it has shown something."""
    _ignored: int = 0
    """Replies in a row that did not keep to the words."""
    seen: set[str] = field(default_factory=set)
    """`thought`, `cut`, `kept` (to the words), `ignored` (them): for judge/doctor.py."""

    def body(self, base: dict[str, Any], choices: Sequence[str], room: int) -> dict[str, Any]:
        """A request as this server wants it.

        Args:
            base: Model, messages, temperature, seed.
            choices: The only replies there are; empty does not hold it to any.
            room: Tokens of a reply that is not held to a few words.
        """
        body = {name: value for name, value in base.items() if name not in self.left_out}
        if choices:
            few = _HELD_JSON_TOKENS if self.spelling == "json_schema" else _HELD_TOKENS
            body |= self._held_to(choices)
            room = room if self.needs_room else few
        if self.tokens_field not in self.left_out:
            body[self.tokens_field] = room
        return body

    def _held_to(self, choices: Sequence[str]) -> dict[str, Any]:
        if self.spelling == "choice":
            return {"structured_outputs": {"choice": list(choices)}}
        if self.spelling == "guided_choice":
            return {"guided_choice": list(choices)}
        schema = {
            "type": "object",
            "properties": {"reply": {"type": "string", "enum": list(choices)}},
            "required": ["reply"],
            "additionalProperties": False,
        }
        return {
            "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
        }

    def learn_from_refusal(self, body: dict[str, Any], text: str) -> bool:
        """Whether a refusal (400, 422) shows how to ask instead."""
        lowered = text.lower()
        if self.tokens_field == "max_tokens" and "max_completion_tokens" in lowered:
            self.tokens_field = "max_completion_tokens"
            return self._learned("takes max_completion_tokens")
        for name in ("seed", "temperature"):
            if name in body and re.search(rf"\b{name}\b", lowered):
                self.left_out.add(name)
                return self._learned(f"refuses {name}")
        if FIELDS.get(self.spelling, "") in body and not _ABOUT_THE_MODEL.search(text):
            name = FIELDS[self.spelling]
            self.spelling = "none"
            return self._learned(f"refuses {name}, and is asked with room instead, which takes longer")
        return False

    def learn_from_reply(self, reply: JudgeReply, *, held: bool, read: bool, with_room: bool) -> None:
        """What a reply shows.

        Args:
            reply: It.
            held: It was to be one of a few words.
            read: It was.
            with_room: It had room for thoughts.
        """
        if reply.thought:
            self.seen.add("thought")
        if reply.cut and (with_room or not held):
            self.seen.add("cut")
        if not held or reply.outage:
            return
        self.seen.add("kept" if read else "ignored")
        self._ignored = 0 if read else self._ignored + 1
        if read or self.spelling == "none":
            return
        if "kept" in self.seen and self._ignored < _IGNORED_TO_BELIEVE:
            return
        if reply.thought and not with_room:
            if not self.needs_room:
                self.needs_room = True
                self._learned("thinks before it writes: its replies get room for that, which takes longer")
            return
        name = FIELDS[self.spelling]
        self.spelling = "none"
        self._learned(f"does not keep to the words it is given ({name}), and is asked with room instead, which takes longer")

    def _learned(self, what: str) -> bool:
        self.lessons += 1
        _log.warning("the judge at %s %s; `deepeyes judge doctor` says more", self.url, what)
        return True
