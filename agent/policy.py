"""All the loop asks of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from agent.messages import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the model wrote in one turn."""

    text: str
    """Stop string included, end-of-sequence token left out; starts after `primer`."""
    finish: Literal["stop", "length"]
    """`length`: cut by a token limit."""
    primer: str = ""
    """Text put into the model's mouth before `text`; it did not sample it."""
    token_ids: tuple[int, ...] = field(default=())  # [num_tokens]
    """What was sampled, exactly; empty where the server does not tell."""
    logprobs: tuple[float, ...] = field(default=())  # [num_tokens]
    num_tokens: int = 0
    context_ids: tuple[int, ...] = field(default=())  # [num_new_context_tokens]
    """What was put between the last reply and this one, primer included; empty where the server does not tell."""
    num_prompt_tokens: int = 0
    """All that the model had before it when it wrote; 0 where the server does not tell."""


class Policy(Protocol):
    """One model, for the length of one episode.

    It is handed only the messages that are *new*, and keeps what it has seen itself: what was sampled is never
    tokenised again.
    """

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        """Read the new messages and answer.

        Args:
            new_messages: Since the last reply.
            max_tokens: What is left of the episode's budget; None is no bound of the episode's.

        Raises:
            ContextFull: The messages do not fit.
            PolicyUnavailable: The model could not be asked.
        """
        ...
