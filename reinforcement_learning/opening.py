"""What the model reads first: the row's messages, or the recipe's prompt around them."""

from __future__ import annotations

from dataclasses import replace

from agent.messages import Message
from agent.prompts import load_prompt
from reinforcement_learning.settings import AgentSettings


def opening(messages: tuple[Message, ...], settings: AgentSettings) -> tuple[Message, ...]:
    """The row's messages; one without a system message gets the recipe's prompt, if it has one."""
    if settings.prompt is None or messages[0].role == "system":
        return messages
    prompt = load_prompt(settings.prompt, tools=settings.tools_on, settings=settings.tool_settings)
    last = replace(messages[-1], text=prompt.question(messages[-1].text))
    return (Message("system", prompt.system), *messages[:-1], last)
