"""The one loop: training, evaluation and the demo all call `run_episode`.

Whose time is it? The model answers for its own tokens, which `max_turns` and `max_episode_tokens` bound, and for how long
its own programs run, which `episode_deadline_s` bounds: only those end an episode in a way that is scored. Waiting for a
free slot, for the engine, for a sandbox or for a search is ours: it never counts against the model, and a wait that does
not end (`reply_deadline_s`, `tool_deadline_s`) is an outage, which is not scored.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from agent.errors import ContextFull, EpisodeFailure, PolicyUnavailable, ToolBroken, ToolError, ToolUnavailable
from agent.images import ImageRule
from agent.messages import Message, shown_if_readable
from agent.policy import Policy, Reply
from agent.protocol import (
    Action,
    FinalAnswer,
    Malformed,
    ToolCall,
    bound_observation,
    parse_action,
    render_error_observation,
)
from agent.scheduling import POLICY, Slots
from agent.settings import AgentSettings
from agent.tools import PROGRAM_LEFT_S, Tool

_CLOSE_S = 30.0
_log = logging.getLogger(__name__)


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
    """The next observation did not fit: the context, the engine's own limit of it, or its limit of images."""
    TOKEN_BUDGET = "token_budget"  # noqa: S105 - no password
    """All tokens that the model may write in an episode were written."""
    DEADLINE = "deadline"
    """The model's programs ran longer than they may, all together."""
    FAILED = "failed"
    """Our outage: not scored, counted. Never without an `Outage` that says what broke."""


Ended = Literal[
    StopReason.ANSWERED, StopReason.NO_ACTION, StopReason.MAX_TURNS, StopReason.LENGTH, StopReason.CONTEXT_FULL,
    StopReason.TOKEN_BUDGET, StopReason.DEADLINE,
]  # fmt: skip
"""The ends that a model answers for: all but an outage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """What broke on our side and ended an episode, which then has no score."""

    reason: str
    ends_run: bool = False
    """Whether it will break every episode to come."""
    error: EpisodeFailure | None = field(default=None, compare=False, repr=False)  # not recorded

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("an outage has no reason; say what broke")


UNFINISHED = Outage(reason="Unfinished: it was not played to its end")
"""The end of an episode that is under way, or was broken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One reply and what came of it."""

    reply: Reply
    action: Action
    observation: Message | None = None
    tool_error: str = ""
    """Why the call was refused or its program failed; empty if all went well."""
    at_s: float = 0.0
    """When the model was asked, since the episode began."""
    reply_s: float = 0.0
    """From asking the engine to its reply."""
    tool_s: float = 0.0
    """Of the call, program and waiting for its server together."""
    program_s: float = 0.0
    """Of the model's own program; the part of `tool_s` that it answers for."""
    waited_s: float = 0.0
    """For a free slot of the model and the tool; not part of the three above."""


OnTurn = Callable[[Turn], None]


@dataclass(kw_only=True, slots=True)
class Episode:
    """Everything that happened, from the opening to the stop."""

    opening: tuple[Message, ...]
    turns: list[Turn] = field(default_factory=list)
    end: Ended | Outage = UNFINISHED
    """`stop_reason` and `failure` are read from it and cannot disagree."""
    answer: str | None = None
    episode_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_at: float = field(default_factory=time.time)
    """Unix time, in seconds."""
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        if self.failed and not self.failure:
            raise ValueError("an episode that failed ends with an Outage, which says what broke")

    @property
    def stop_reason(self) -> StopReason:
        """Why it ended."""
        return StopReason.FAILED if isinstance(self.end, Outage) else StopReason(self.end)

    @property
    def outage(self) -> Outage | None:
        """What broke on our side and ended it, if that is how it ended."""
        return self.end if isinstance(self.end, Outage) else None

    @property
    def failure(self) -> str:
        """The reason of the outage; empty if there was none."""
        return self.outage.reason if self.outage is not None else ""

    @property
    def replies(self) -> list[str]:
        """What the model wrote, turn by turn, primers included."""
        return [turn.reply.primer + turn.reply.text for turn in self.turns]

    @property
    def failed(self) -> bool:
        """Whether an outage of ours ended it."""
        return self.stop_reason is StopReason.FAILED

    def fail(self, error: EpisodeFailure) -> None:
        """Mark it as ended by an outage of ours: it has no score."""
        self.end = Outage(reason=f"{type(error).__name__}: {error}", ends_run=error.ends_run, error=error)

    @property
    def num_tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(turn.reply.num_tokens for turn in self.turns)

    def calls(self, tool: str | None = None) -> int:
        """How often the model called a tool, or one named tool."""
        return sum(isinstance(turn.action, ToolCall) and (tool is None or turn.action.name == tool) for turn in self.turns)

    @property
    def program_s(self) -> float:
        """How long the model's programs ran."""
        return sum(turn.program_s for turn in self.turns)

    @property
    def waits_s(self) -> dict[str, float]:
        """What it waited for, in seconds: `slot`, `engine` (replies, sampling included), `tools` (without programs)."""
        return {
            "slot": sum(turn.waited_s for turn in self.turns),
            "engine": sum(turn.reply_s for turn in self.turns),
            "tools": sum(max(0.0, turn.tool_s - turn.program_s) for turn in self.turns),
        }

    @property
    def tool_errors(self) -> int:
        """Calls that ended in an error the model was told of."""
        return sum(bool(turn.tool_error) for turn in self.turns)


async def run_episode(
    opening: Sequence[Message],
    *,
    policy: Policy,
    tools: Mapping[str, Tool],
    settings: AgentSettings | None = None,
    image_rule: ImageRule | None = None,
    slots: Slots | None = None,
    episode_id: str | None = None,
    on_turn: OnTurn | None = None,
) -> Episode:
    """Let the model work on a question until it answers or is stopped.

    Args:
        opening: System prompt and question.
        policy: A model that has seen nothing yet.
        tools: By the name the model calls them; closed at the end.
        settings: Of which the limits count here; the published ones by default.
        image_rule: What the model sees of the images that tools give, as those of the opening are; None leaves them alone.
        slots: How many episodes may use the model and each tool at once; no bound by default.
        episode_id: For the record; random by default.
        on_turn: Is told of each turn when its reply is there, and again when its observation is.

    Returns:
        The episode. An outage does not raise: it ends the episode as FAILED.
    """
    settings = settings or AgentSettings()
    episode = Episode(opening=tuple(opening), episode_id=episode_id or uuid.uuid4().hex)
    started = time.monotonic()
    try:
        run = _Run(episode, policy, tools, settings, image_rule, slots or Slots({}), started, on_turn or (lambda _: None))
        episode.end = await run.play()
    except ContextFull:
        episode.end = StopReason.CONTEXT_FULL
    except EpisodeFailure as error:
        episode.fail(error)
    finally:
        episode.wall_s = time.monotonic() - started
        # Closing must happen even when the episode is being cancelled, and its own failure changes nothing.
        await asyncio.shield(asyncio.gather(*(_close(tool) for tool in tools.values()), return_exceptions=True))
    return episode


async def _close(tool: Tool) -> None:
    async with asyncio.timeout(_CLOSE_S):
        await tool.close()


class _Run:
    """One episode under way."""

    def __init__(
        self,
        episode: Episode,
        policy: Policy,
        tools: Mapping[str, Tool],
        settings: AgentSettings,
        image_rule: ImageRule | None,
        slots: Slots,
        started: float,
        on_turn: OnTurn,
    ) -> None:
        self._episode = episode
        self._policy = policy
        self._tools = tools
        self._settings = settings
        self._image_rule = image_rule
        self._slots = slots
        self._started = started
        self._on_turn = on_turn
        self._succeeded: Counter[str] = Counter()

    async def play(self) -> Ended:
        new_messages: Sequence[Message] = self._episode.opening
        for number in range(1, self._settings.max_turns + 1):
            turn = await self._ask(new_messages)
            # Kept before the call is made: a turn whose tool fails or never returns is part of the record.
            self._episode.turns.append(turn)
            self._on_turn(turn)
            stop = self._stop_before_tools(turn, last=number == self._settings.max_turns)
            if stop is not None:
                if isinstance(turn.action, FinalAnswer):
                    self._episode.answer = turn.action.text
                return stop
            turn = await self._observe(turn)
            self._episode.turns[-1] = turn
            self._on_turn(turn)
            assert turn.observation is not None
            if self._program_left_s() == 0.0:
                return StopReason.DEADLINE
            new_messages = [turn.observation]
        raise AssertionError("the last turn always stops")

    async def _ask(self, new_messages: Sequence[Message]) -> Turn:
        allowed = self._settings.max_episode_tokens
        left = None if allowed is None else allowed - self._episode.num_tokens
        async with self._slots.use(POLICY) as waited_s:
            asked = time.monotonic()
            reply = await self._reply(new_messages, left)
        return Turn(
            reply=reply,
            action=parse_action(reply.primer + reply.text),
            at_s=asked - self._started,
            reply_s=time.monotonic() - asked,
            waited_s=waited_s,
        )

    async def _reply(self, new_messages: Sequence[Message], max_tokens: int | None) -> Reply:
        allowed_s = _shortest(self._settings.reply_deadline_s, self._settings.episode_deadline_s)
        deadline = asyncio.timeout(allowed_s)
        try:
            async with deadline:
                return await self._policy.reply(new_messages, max_tokens=max_tokens)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise PolicyUnavailable(f"the engine gave no reply in {allowed_s:g} s") from error

    def _program_left_s(self) -> float | None:
        allowed_s = self._settings.episode_deadline_s
        return None if allowed_s is None else max(0.0, allowed_s - self._episode.program_s)

    def _stop_before_tools(self, turn: Turn, *, last: bool) -> Ended | None:
        if isinstance(turn.action, FinalAnswer):
            return StopReason.ANSWERED
        allowed = self._settings.max_episode_tokens
        if allowed is not None and self._episode.num_tokens >= allowed:
            return StopReason.TOKEN_BUDGET
        if turn.reply.finish == "length" or not turn.reply.text:
            return StopReason.LENGTH
        if isinstance(turn.action, Malformed) and turn.action.observation is None:
            return StopReason.NO_ACTION
        return StopReason.MAX_TURNS if last else None

    async def _observe(self, turn: Turn) -> Turn:
        """The turn with its observation and, if the model erred, why."""
        action = turn.action
        if isinstance(action, Malformed):
            assert action.observation is not None
            return replace(turn, observation=self._refusal(action.observation), tool_error=action.reason)
        assert isinstance(action, ToolCall)
        tool = self._tools.get(action.name)
        if tool is None:
            names = ", ".join(sorted(self._tools)) or "no tools"
            text = f"Error: Invalid tool call name: {action.name!r} is not one of {names}"
            return replace(turn, observation=self._refusal(text), tool_error="unknown tool")
        allowed = self._settings.max_calls.get(action.name)
        if allowed is not None and self._succeeded[action.name] >= allowed:
            times = "only once" if allowed == 1 else f"at most {allowed} times"
            text = f"Error: {action.name} can be used {times}"
            return replace(turn, observation=self._refusal(text), tool_error="too many calls")
        async with self._slots.use(action.name) as waited_s:
            called = time.monotonic()
            observation, error, program_s = await self._call(action, tool)
        return replace(
            turn,
            observation=observation,
            tool_error=error,
            tool_s=time.monotonic() - called,
            program_s=program_s,
            waited_s=turn.waited_s + waited_s,
        )

    async def _call(self, action: ToolCall, tool: Tool) -> tuple[Message, str, float]:
        """(observation, what the model did wrong, seconds that its program ran)."""
        left_s, wait_s = self._program_left_s(), self._settings.episode_deadline_s
        together_s = None if left_s is None or wait_s is None else left_s + wait_s
        allowed_s = _shortest(self._settings.tool_deadline_s, together_s)
        deadline = asyncio.timeout(allowed_s)
        token = PROGRAM_LEFT_S.set(left_s)
        try:
            async with deadline:
                result = await tool.run(action.arguments)
        except ToolError as error:
            return self._refusal(f"Error: {error}"), str(error), 0.0
        except EpisodeFailure:
            raise
        except Exception as error:
            if deadline.expired():
                raise ToolUnavailable(f"{action.name} did not return in {allowed_s:g} s") from error
            raise self._broken(action.name, error) from error
        finally:
            PROGRAM_LEFT_S.reset(token)
        self._succeeded[action.name] += 1
        try:
            observation = self._bounded(result.observation)
            if observation.images:
                observation = await asyncio.to_thread(shown_if_readable, observation, self._image_rule)
        except Exception as error:
            raise self._broken(action.name, error) from error
        return observation, result.error, result.program_s

    def _broken(self, tool: str, error: Exception) -> ToolBroken:
        """A fault in a tool is ours. It must neither be scored nor take the other episodes with it."""
        _log.error("tool %s broke in episode %s", tool, self._episode.episode_id, exc_info=error)
        return ToolBroken(f"{tool} broke: {type(error).__name__}: {error}")

    def _refusal(self, text: str) -> Message:
        return self._bounded(render_error_observation(text))

    def _bounded(self, message: Message) -> Message:
        settings = self._settings
        return bound_observation(
            message, max_chars=settings.max_observation_chars, max_images=settings.max_observation_images
        )


def _shortest(*bounds_s: float | None) -> float | None:
    return min((bound_s for bound_s in bounds_s if bound_s is not None), default=None)
