"""The recipe's own words: tools, prompts, limits by tool, and verl's values by verl's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.loading import plugin_names
from agent.prompts import load_prompt
from agent.recipes import RecipeError
from agent.scheduling import POLICY
from agent.tools import described_tools
from judge.client import load_judge_prompt
from reinforcement_learning.recipe import Recipe


def check_agent(recipe: Recipe) -> str:
    """Tools and prompts are there, by the names that the recipe gives them.

    Raises:
        RecipeError: Every name that is unknown, each with the list of those there are.
    """
    agent = recipe.agent
    tools = plugin_names("agent.tools")
    problems = [
        f"unknown tool {name!r} in agent.tools; there are: {', '.join(tools)}" for name in agent.tools if name not in tools
    ]
    usable = [name for name in agent.tools if name in tools]
    try:
        called = sorted({*tools, *described_tools(usable, agent)})
    except ValueError as error:
        called = tools
        problems.append(f"agent.tools: {error}")
    for block, names in (("max_calls", agent.max_calls), ("max_in_flight", agent.max_in_flight)):
        known = called if block == "max_calls" else [POLICY, *called]
        problems += [
            f"unknown tool {name!r} in agent.{block}; there are: {', '.join(known)}" for name in names if name not in known
        ]
    prompt = "the rows' own system messages"
    if agent.prompt is not None:
        try:
            loaded = load_prompt(agent.prompt, tools=usable, settings=agent)
            prompt = f"prompt {loaded.name} version {loaded.version} for rows without one"
        except (LookupError, ValueError) as error:
            problems.append(f"agent.prompt: {error}")
    try:
        load_judge_prompt(agent.judge.prompt)
    except LookupError as error:
        problems.append(f"agent.judge.prompt: {error}")
    if problems:
        raise RecipeError("; ".join(problems))
    return f"tools {', '.join(agent.tools_on) or 'none'}; {prompt}; {agent.max_turns} turns"


def check_verl(verl: Mapping[str, Any], verl_extra: Mapping[str, Any]) -> str:
    """verl's values, composed and read by verl itself. Importing verl takes ten seconds.

    Raises:
        RecipeError: All that verl would refuse.
    """
    from reinforcement_learning.verl_adapter.verl_values import problems_of

    problems = problems_of(verl, verl_extra)
    if problems:
        raise RecipeError("\n".join(problems))
    return "every key is one of verl 0.9.1, of the right type; its own validation passes"
