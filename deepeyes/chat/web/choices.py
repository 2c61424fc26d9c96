"""What may be chosen on the page: never more than the settings that the server was started with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.options import settings_of
from agent.settings import AgentSettings

LIMITS = ("max_turns", "max_reply_tokens", "python_timeout_s")
MOST_TEMPERATURE = 2.0


class Chosen(BaseModel):
    """The choices of one conversation; None leaves a thing as the server has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=MOST_TEMPERATURE)
    tools: tuple[str, ...] | None = None
    limits: dict[str, float] = Field(default_factory=dict)
    """Settings of `LIMITS` by name."""


def settings_for(settings: AgentSettings, chosen: Chosen) -> AgentSettings:
    """The settings of a conversation.

    Raises:
        ValueError: More is wanted than there is.
    """
    changes: dict[str, Any] = {}
    if chosen.tools is not None:
        for tool in chosen.tools:
            if tool not in settings.tools_on:
                there = ", ".join(settings.tools_on) or "no tools"
                raise ValueError(f"this server has no tool {tool[:100]!r}; it has {there}")
        changes["tools"] = tuple(tool for tool in settings.tools_on if tool in chosen.tools)
    for name, wanted in chosen.limits.items():
        if name not in LIMITS:
            raise ValueError(f"{name[:100]!r} cannot be chosen; the limits are {', '.join(LIMITS)}")
        most = getattr(settings, name)
        if most is not None and wanted > most:
            raise ValueError(f"{name} {wanted:g} is more than the {most:g} of this server; choose at most that")
        changes[name] = wanted
    narrowed: AgentSettings = settings_of(AgentSettings, settings.model_dump() | changes)
    return narrowed


def offered(settings: AgentSettings, temperature: float) -> dict[str, Any]:
    """The choices as the page shows them: each limit's value is the most that there is."""
    return {
        "tools": list(settings.tools_on),
        "temperature": temperature,
        "most_temperature": MOST_TEMPERATURE,
        "limits": {name: getattr(settings, name) for name in LIMITS},
    }
