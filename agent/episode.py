"""The one loop: training, evaluation and the demo all call `run_episode`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.errors import ContextFull, EpisodeFailure, ToolError
from agent.messages import Message
from agent.policy import Policy, Reply
from agent.protocol import Action, FinalAnswer, Malformed, ToolCall, parse_action, render_error_observation
from agent.tools import Tool


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    """The model gave a final answer."""
    NO_ACTION = "no_action"
    """A reply held neither an answer nor a call."""
    MAX_TURNS = "max_turns"
    """The last allowed reply was a call."""
    LENGTH = "length"
    """A reply was cut by its token limit, or was empty."""
    CONTEXT_FULL = "context_full"
    """The next observation did not fit the context."""
    DEADLINE = "deadline"
    """The episode ran longer than it may."""
    FAILED = "failed"
    """Our outage: not scored, counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeLimits:
    """When an episode is cut short."""

    max_turns: int = 9
    """Model replies, the answer included. Source: DeepEyesV2 0373e6e, run_qwen2_5_vl-7b_final_allin.sh."""
    deadline_s: float | None = None
    """Wall time of the whole episode, in seconds."""

    def __post_init__(self) -> None:
        if self.max_turns < 1:
            raise ValueError(f"max_turns is {self.max_turns}; an episode needs at least 1")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise ValueError(f"deadline_s is {self.deadline_s}; expected more than 0, or null for none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One reply and what came of it."""

    reply: Reply
    action: Action
    observation: Message | None = None
    tool_error: str = ""
    """Why the call was refused or its program failed; empty if all went well."""
    reply_s: float = 0.0
    tool_s: float = 0.0


@dataclass(kw_only=True, slots=True)
class Episode:
    """Everything that happened, from the opening to the stop."""

    opening: tuple[Message, ...]
    turns: list[Turn] = field(default_factory=list)
    stop_reason: StopReason = StopReason.FAILED
    answer: str | None = None
    failure: str = ""
    """What broke, if `stop_reason` is FAILED."""
    episode_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def replies(self) -> list[str]:
        """What the model wrote, turn by turn, primers included."""
        return [turn.reply.primer + turn.reply.text for turn in self.turns]

    @property
    def failed(self) -> bool:
        """Whether an outage of ours ended it."""
        return self.stop_reason is StopReason.FAILED

    def calls(self, tool: str | None = None) -> int:
        """How often the model called a tool, or one named tool."""
        return sum(isinstance(turn.action, ToolCall) and (tool is None or turn.action.name == tool) for turn in self.turns)

    @property
    def tool_errors(self) -> int:
        """Calls that ended in an error the model was told of."""
        return sum(bool(turn.tool_error) for turn in self.turns)


async def run_episode(
    opening: Sequence[Message],
    *,
    policy: Policy,
    tools: Mapping[str, Tool],
    limits: EpisodeLimits | None = None,
    episode_id: str | None = None,
) -> Episode:
    """Let the model work on a question until it answers or is stopped.

    Args:
        opening: System prompt and question.
        policy: A model that has seen nothing yet.
        tools: By the name the model calls them; closed at the end.
        limits: The published ones by default.
        episode_id: For the record; random by default.

    Returns:
        The episode. An outage does not raise: it ends the episode as FAILED.
    """
    limits = limits or EpisodeLimits()
    episode = Episode(opening=tuple(opening), episode_id=episode_id or uuid.uuid4().hex)
    try:
        async with asyncio.timeout(limits.deadline_s):
            await _run(episode, policy, tools, limits)
    except TimeoutError:
        episode.stop_reason = StopReason.DEADLINE
    except EpisodeFailure as error:
        episode.stop_reason, episode.failure = StopReason.FAILED, f"{type(error).__name__}: {error}"
    finally:
        # Closing must happen even when the episode is being cancelled, and its own failure changes nothing.
        await asyncio.shield(asyncio.gather(*(tool.close() for tool in tools.values()), return_exceptions=True))
    return episode


async def _run(episode: Episode, policy: Policy, tools: Mapping[str, Tool], limits: EpisodeLimits) -> None:
    new_messages: Sequence[Message] = episode.opening
    for number in range(1, limits.max_turns + 1):
        started = time.monotonic()
        try:
            reply = await policy.reply(new_messages)
        except ContextFull:
            episode.stop_reason = StopReason.CONTEXT_FULL
            return
        reply_s = time.monotonic() - started
        action = parse_action(reply.text)
        stop = _stop_before_tools(reply, action, last=number == limits.max_turns)
        if stop is not None:
            episode.turns.append(Turn(reply=reply, action=action, reply_s=reply_s))
            episode.stop_reason = stop
            if stop is StopReason.ANSWERED and isinstance(action, FinalAnswer):
                episode.answer = action.text
            return
        started = time.monotonic()
        observation, tool_error = await _observe(action, tools)
        episode.turns.append(
            Turn(
                reply=reply,
                action=action,
                observation=observation,
                tool_error=tool_error,
                reply_s=reply_s,
                tool_s=time.monotonic() - started,
            )
        )
        new_messages = [observation]


def _stop_before_tools(reply: Reply, action: Action, *, last: bool) -> StopReason | None:
    if isinstance(action, FinalAnswer):
        return StopReason.ANSWERED
    if reply.finish == "length" or not reply.text:
        return StopReason.LENGTH
    if isinstance(action, Malformed) and action.observation is None:
        return StopReason.NO_ACTION
    return StopReason.MAX_TURNS if last else None


async def _observe(action: Action, tools: Mapping[str, Tool]) -> tuple[Message, str]:
    """Run the call; returns the observation and, if the model erred, why."""
    if isinstance(action, Malformed):
        assert action.observation is not None
        return render_error_observation(action.observation), action.reason
    assert isinstance(action, ToolCall)
    tool = tools.get(action.name)
    if tool is None:
        text = f"Error: Invalid tool call name: {action.name!r} is not one of {', '.join(sorted(tools)) or 'no tools'}"
        return render_error_observation(text), "unknown tool"
    try:
        result = await tool.run(action.arguments)
    except ToolError as error:
        return render_error_observation(f"Error: {error}"), str(error)
    return result.observation, result.error
