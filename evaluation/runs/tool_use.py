"""What a model did in an episode, for reports; read out of recorded episodes, no image is loaded."""

from __future__ import annotations

import re

from agent.calls import calls_of
from agent.episode import Episode
from agent.protocol import FormatRule, format_errors
from evaluation.runs.rows import EpisodeFacts

_FORMAT_RULES: tuple[FormatRule, ...] = ("think", "code", "tool_call")


def episode_facts(episode: Episode) -> EpisodeFacts:
    """What a report counts of one episode."""
    turns, calls = episode.turns, tuple(calls_of(episode.turns))
    broken = format_errors(episode.replies, tags=_FORMAT_RULES) if turns else []
    return EpisodeFacts(
        stop_reason=episode.stop_reason,
        failure=episode.failure,
        turns=len(turns),
        calls=calls,
        tool_errors=sum(bool(call.error) for call in calls),
        reply_tokens=episode.num_tokens,
        prompt_tokens=sum(turn.reply.num_prompt_tokens for turn in turns),
        reply_s=round(sum(turn.reply_s for turn in turns), 3),
        tool_s=round(sum(turn.tool_s for turn in turns), 3),
        wall_s=episode.wall_s,
        images_seen=sum(len(turn.observation.images) for turn in turns if turn.observation is not None),
        format_errors=tuple(_rule_of(error) for error in broken),
        cut=any(turn.reply.finish == "length" for turn in turns),
    )


def _rule_of(error: str) -> str:
    """Which rule a format error is about, without its counts."""
    tag = re.search(r"<(think|code|tool_call)>", error)
    if tag is not None:
        return f"unbalanced <{tag[1]}>"
    return "empty answer" if "empty" in error else "no single answer"
