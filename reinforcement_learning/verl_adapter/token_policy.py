"""A policy in tokens: what was sampled is what is trained on, token for token.

The conversation is one growing list of ids. Sampled ids are appended as they came (mask 1); everything else (the end
of a turn that stopped on a string, the next observation, the header of the next reply) is tokenised alone and appended
with mask 0. Nothing that was sampled is ever decoded and encoded again.

Imports neither verl nor torch, so that it is tested with a tokenizer and a list of replies.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.chat_formats import ChatFormat
from agent.errors import ContextFull, EpisodeFailure
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import STOP_STRINGS
from reinforcement_learning.verl_adapter.image_store import ImageRef


class PromptTooLong(EpisodeFailure):
    """The question alone does not fit; a matter of the data and the recipe, not of the model."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the engine sampled."""

    token_ids: list[int]  # [num_tokens]
    logprobs: list[float]  # [num_tokens]


class Generate(Protocol):
    """The inference engine: ids and references to images in, sampled ids out."""

    async def __call__(
        self, token_ids: list[int], images: list[ImageRef], *, max_tokens: int, logit_bias: dict[int, float]
    ) -> Sampled: ...


class ImageSizer(Protocol):
    """What the engine sees of an image, and how many placeholder tokens that takes."""

    def __call__(self, image: ImageFile) -> tuple[ImageRef, int]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLimits:
    """Limits in tokens. Source of the defaults: DeepEyesV2 0373e6e, run_qwen2_5_vl-7b_final_allin.sh."""

    max_prompt_tokens: int = 8192
    max_response_tokens: int = 16384
    """All replies and observations of an episode together."""
    max_reply_tokens: int | None = None
    max_context_tokens: int | None = None
    """Prompt, replies and observations together, as the engine counts them (vLLM's `max_model_len`); None is no bound."""
    max_images: int | None = None
    """Of a whole episode, as the engine bounds them (vLLM's `limit_mm_per_prompt`); None is no bound."""


@dataclass(slots=True)
class TokenBuffer:
    """One episode in tokens, ready for training."""

    prompt_ids: list[int] = field(default_factory=list)  # [num_prompt_tokens]
    response_ids: list[int] = field(default_factory=list)  # [num_response_tokens]
    response_mask: list[int] = field(default_factory=list)  # [num_response_tokens]; 1 = sampled by the model
    response_logprobs: list[float] = field(default_factory=list)  # [num_response_tokens]; 0.0 where the mask is 0
    images: list[ImageRef] = field(default_factory=list)  # in order of their placeholders

    def append(self, token_ids: Sequence[int], *, sampled: bool, logprobs: Sequence[float] | None = None) -> None:
        """Append to the response."""
        self.response_ids += token_ids
        self.response_mask += [int(sampled)] * len(token_ids)
        self.response_logprobs += logprobs if logprobs is not None else [0.0] * len(token_ids)


class TokenPolicy:
    """A `Policy` over an inference engine that speaks tokens.

    Args:
        tokenizer: The model's.
        chat_format: How the model is talked to.
        size_image: For the images of the messages.
        generate: The engine.
        limits: Of the episode.
        primer: Put before each reply that follows an observation, unless the format begins every reply with one of its own.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_format: ChatFormat,
        size_image: ImageSizer,
        generate: Generate,
        *,
        limits: TokenLimits,
        primer: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._format = chat_format
        self._size_image = size_image
        self._generate = generate
        self._limits = limits
        self._primer = chat_format.primer or primer
        self._turn_end_id: int = tokenizer.convert_tokens_to_ids(chat_format.reply_end)
        unknown = tokenizer.unk_token_id
        ids = (tokenizer.convert_tokens_to_ids(token) for token in chat_format.never_sampled)
        # A sampled image placeholder would have no image; training on such a sequence ends the run.
        self._logit_bias = {token_id: -100.0 for token_id in ids if token_id is not None and token_id != unknown}
        self.buffer = TokenBuffer()

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        """Append the new messages, sample, append what was sampled."""
        known = len(self.buffer.prompt_ids) + len(self.buffer.response_ids)
        if not self.buffer.prompt_ids:
            self._open(new_messages)
            primer = self._format.primer
        else:
            self._observe(new_messages)
            primer = self._primer
        room = self._limits.max_response_tokens - len(self.buffer.response_ids)
        read_ids = self.buffer.prompt_ids + self.buffer.response_ids
        bounds = [room] + [bound for bound in (self._limits.max_reply_tokens, max_tokens) if bound is not None]
        if self._limits.max_context_tokens is not None:
            bounds.append(self._limits.max_context_tokens - len(read_ids))
        sampled = await self._generate(
            read_ids,
            self.buffer.images,
            max_tokens=min(bounds),
            logit_bias=self._logit_bias,
        )
        ids = list(sampled.token_ids)
        if len(sampled.logprobs) != len(ids):
            raise EpisodeFailure(f"the engine gave {len(sampled.logprobs)} log-probabilities for {len(ids)} tokens")
        self.buffer.append(ids, sampled=True, logprobs=sampled.logprobs)
        ended = bool(ids) and ids[-1] == self._turn_end_id
        text: str = self._tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        # The engine reports a stop string and a token limit alike, and a stop string may sit inside the last token.
        stopped = ended or any(stop in text for stop in STOP_STRINGS)
        return Reply(
            text=text,
            finish="stop" if stopped else "length",
            primer=primer,
            token_ids=tuple(ids),
            logprobs=tuple(sampled.logprobs),
            num_tokens=len(ids),
            context_ids=tuple(read_ids[known:]),
            num_prompt_tokens=len(read_ids),
        )

    def _open(self, messages: Sequence[Message]) -> None:
        images: list[ImageRef] = []
        text = self._format.opening([(message.role, self._content(message, images)) for message in messages])
        prompt_ids = self._encode(text + self._format.primer)
        limits = self._limits
        if len(prompt_ids) > limits.max_prompt_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt_ids)} tokens, {limits.max_prompt_tokens} are allowed; lower "
                "agent.image_max_pixels or raise verl.data.max_prompt_length"
            )
        if problem := self._engine_refuses(len(prompt_ids), len(images)):
            raise PromptTooLong(f"the question alone is too much for the engine: {problem}")
        self.buffer.prompt_ids, self.buffer.images = prompt_ids, images

    def _observe(self, messages: Sequence[Message]) -> None:
        images: list[ImageRef] = []
        text = self._format.after_reply([(message.role, self._content(message, images)) for message in messages])
        # A turn that stopped on a string, or was cut, has no end of its own; the model did not sample this one.
        closing = [] if self.buffer.response_ids[-1:] == [self._turn_end_id] else [self._turn_end_id]
        ids = closing + self._encode(text + self._primer)
        # At least one token must be left for the reply; an observation is appended whole or not at all, because a cut inside
        # an image's placeholders would leave pixels without tokens.
        if len(self.buffer.response_ids) + len(ids) + 1 > self._limits.max_response_tokens:
            raise ContextFull(f"an observation of {len(ids)} tokens does not fit")
        known = len(self.buffer.prompt_ids) + len(self.buffer.response_ids)
        if problem := self._engine_refuses(known + len(ids), len(self.buffer.images) + len(images)):
            raise ContextFull(problem)
        self.buffer.append(ids, sampled=False)
        self.buffer.images += images

    def _engine_refuses(self, num_tokens: int, num_images: int) -> str:
        """Why the engine would not take so much and write one token more; empty if it would."""
        limits = self._limits
        if limits.max_context_tokens is not None and num_tokens + 1 > limits.max_context_tokens:
            return f"{num_tokens} tokens and a reply exceed {limits.max_context_tokens} (rollout.max_model_len)"
        if limits.max_images is not None and num_images > limits.max_images:
            return f"{num_images} images exceed {limits.max_images} (engine_kwargs.vllm.limit_mm_per_prompt)"
        return ""

    def _content(self, message: Message, images: list[ImageRef]) -> str:
        content = ""
        for part in message.parts():
            if isinstance(part, str):
                content += part
            else:
                try:
                    ref, num_tokens = self._size_image(part)
                except Exception as error:
                    raise EpisodeFailure(f"{part!r} of a {message.role} message cannot be sized: {error}") from error
                images.append(ref)
                content += self._format.image(num_tokens)
        return content

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def count_prompt_tokens(
    tokenizer: Any, chat_format: ChatFormat, size_image: ImageSizer, messages: Sequence[Message]
) -> int:
    """Tokens of an opening, as a rollout would make it."""
    limits = TokenLimits(max_prompt_tokens=sys.maxsize, max_response_tokens=sys.maxsize)
    policy = TokenPolicy(tokenizer, chat_format, size_image, _never, limits=limits)
    policy._open(messages)
    return len(policy.buffer.prompt_ids)


async def _never(*_: Any, **__: Any) -> Sampled:
    raise AssertionError("counting samples nothing")
