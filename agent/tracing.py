"""An episode as OpenTelemetry spans: the episode, its turns, and in a turn the reply and the call.

Around the loop and not in it: an episode that nobody traces runs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.episode import Episode, run_episode
from agent.errors import EpisodeFailure, ToolError
from agent.messages import Message
from agent.policy import Policy, Reply
from agent.tools import Tool, ToolResult

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_AGENT = "deepeyes"
_OPERATION = "gen_ai.operation.name"


async def traced_episode(
    tracer: Tracer, opening: Sequence[Message], *, policy: Policy, tools: Mapping[str, Tool], **loop: Any
) -> Episode:
    """Play `run_episode` with these arguments, under spans.

    What was said and shown is not in them, only numbers and names, as the conventions advise: records hold the rest.
    """
    attributes = {_OPERATION: "invoke_agent", "gen_ai.agent.name": _AGENT}
    with tracer.start_as_current_span(f"invoke_agent {_AGENT}", attributes=attributes) as span:
        turns = _Turns(tracer)
        try:
            traced = {name: _TracedTool(name, tool, tracer) for name, tool in tools.items()}
            episode = await run_episode(opening, policy=_TracedPolicy(policy, turns), tools=traced, **loop)
        finally:
            turns.end()
        span.set_attributes(
            {
                "gen_ai.conversation.id": episode.episode_id,
                "gen_ai.usage.output_tokens": episode.num_tokens,
                "deepeyes.stop_reason": episode.stop_reason,
                "deepeyes.turns": len(episode.turns),
            }
        )
        if episode.outage is not None:
            _mark(span, type(episode.outage.error).__name__)
        return episode


class _Turns:
    """One turn is open at a time: from the question to the model until the next one, its call included."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self._number = 0
        self._open: Any = None

    def begin(self) -> None:
        """Open the next turn; what this task does from now on belongs to it."""
        self.end()
        self._number += 1
        self._open = self.tracer.start_as_current_span("turn", attributes={"deepeyes.turn": self._number})
        self._open.__enter__()

    def end(self) -> None:
        """Close the turn that is open."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


class _TracedPolicy:
    """A model, each reply of which is the beginning of a turn."""

    def __init__(self, policy: Policy, turns: _Turns) -> None:
        self._policy = policy
        self._turns = turns

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        self._turns.begin()
        with self._turns.tracer.start_as_current_span("chat", attributes={_OPERATION: "chat"}) as span:
            try:
                reply = await self._policy.reply(new_messages, max_tokens=max_tokens)
            except EpisodeFailure as error:
                _mark(span, type(error).__name__)
                raise
            span.set_attribute("gen_ai.usage.output_tokens", reply.num_tokens)
            span.set_attribute("gen_ai.response.finish_reasons", [reply.finish])
            if reply.num_prompt_tokens:
                span.set_attribute("gen_ai.usage.input_tokens", reply.num_prompt_tokens)
            return reply


class _TracedTool:
    """A tool, each call of which is a span."""

    def __init__(self, name: str, tool: Tool, tracer: Tracer) -> None:
        self._name = name
        self._tool = tool
        self._tracer = tracer

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        attributes = {_OPERATION: "execute_tool", "gen_ai.tool.name": self._name, "gen_ai.tool.type": "function"}
        with self._tracer.start_as_current_span(f"execute_tool {self._name}", attributes=attributes) as span:
            try:
                result = await self._tool.run(arguments)
            except (ToolError, EpisodeFailure) as error:
                _mark(span, type(error).__name__)
                raise
            if result.error:
                _mark(span, "ToolError")
            return result

    async def close(self) -> None:
        await self._tool.close()


def _mark(span: Span, error: str) -> None:
    """Say that it failed, and of what kind; a message may hold what a model or a user wrote."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)
