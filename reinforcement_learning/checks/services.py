"""The servers that episodes use: sandbox with its Redis, judge, search."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agent.recipes import RecipeError
from code_sandbox.client import SandboxClient
from judge.client import Judge, JudgeMisconfigured
from reinforcement_learning.recipe import Recipe

_QUESTION, _GOLD, _ANSWER = "What colour is the car?", "dark red", "It is a maroon car."


def check_sandbox(recipe: Recipe) -> str:
    """Ask every sandbox server how it is, and run a cell.

    Raises:
        RecipeError: A server has lost its Redis, or computes nonsense.
    """

    async def ask() -> str:
        async with SandboxClient(list(recipe.agent.sandbox_urls), wait_s=5.0) as client:
            states = await client.health()
            for state in states:
                if state.redis != "ok":
                    raise RecipeError(
                        f"sandbox {state.server_id} has lost its Redis and takes no new sessions; restart Redis"
                    )
            session = await client.open()
            try:
                result = await session.execute("print(6 * 7)", timeout_s=10)
            finally:
                await session.close()
            if result.stdout.strip() != "42":
                raise RecipeError(f"the sandbox computed {result.stdout!r} instead of 42: {result.stderr}")
            return f"{len(states)} server(s), room for {sum(state.max_sessions for state in states)} sessions; 6 * 7 gave 42"

    return asyncio.run(ask())


def check_judge(recipe: Recipe) -> str:
    """The judge is asked a question, and what it says is shown.

    Raises:
        RecipeError: There is none, it does not answer, or its answer cannot be read.
    """
    block = recipe.agent.judge
    if not block.base_urls:
        if block.strict_rules:
            return "answers are decided by rules alone"
        raise RecipeError(
            "no judge: set LLM_AS_A_JUDGE_BASE (such as http://10.0.0.5:18901/v1), or agent.judge.strict_rules=true for "
            "data that rules can decide"
        )
    settings = block.model_copy(update={"cache": None, "patience_s": 5.0, "votes": 1})
    settings = settings.model_copy(update={"strict_rules": False, "log_only": False})

    async def ask() -> str:
        judge = Judge(settings)
        try:
            await judge.ping()
            began = time.monotonic()
            verdict = await judge.judge(_ANSWER, _GOLD, question=_QUESTION)
        except (ConnectionError, JudgeMisconfigured) as error:
            raise RecipeError(f"the judge: {error}") from error
        finally:
            await judge.aclose()
        name = f"{block.model} at {', '.join(judge.llm.connection.urls)}"
        if verdict.correct is None:
            raise RecipeError(
                f"judge {name} was asked whether {_ANSWER!r} is {_GOLD!r} and gave no verdict: "
                f"{verdict.reason or verdict.raw_reply[:200]!r}; see deepeyes judge doctor"
            )
        said = verdict.raw_reply.strip()[-80:] or verdict.outcome.value
        slow = any(manners.needs_room or manners.spelling == "none" for manners in judge.llm.manners.values())
        return (
            f"{name}: asked whether {_ANSWER!r} is {_GOLD!r}, it says {said!r} ({verdict.outcome.value}) after "
            f"{time.monotonic() - began:.1f} s"
            + ("; it is not held to the two words, which takes longer: see deepeyes judge doctor" if slow else "")
        )

    try:
        return asyncio.run(ask())
    except ValueError as error:  # an address or a key that cannot be one
        raise RecipeError(str(error)) from error


def check_search(tool: str, block: dict[str, Any] | None, *, pages: bool) -> str:
    """The provider is opened; one that reads a local file is asked, because that costs nothing.

    Raises:
        RecipeError: No settings, bad ones, or a provider that does not do what the tools need.
    """
    from agent.search.gateway import open_search

    if not block:
        raise RecipeError(f"the tool {tool!r} needs agent.{tool}: {{provider: …}}, or take it out of agent.tools")
    try:
        search = open_search(block)
    except TypeError as error:
        raise RecipeError(f"agent.{tool}: {error}") from error
    if search is None:
        return "off"

    async def ask() -> str:
        try:
            if tool != "search" or block["provider"] != "local" or search.settings.mode != "live":
                return "not asked, its answers cost"
            began = time.monotonic()
            hits = await search.search("what is this", max_hits=1)
            return f"{len(hits)} hit in {1000 * (time.monotonic() - began):.0f} ms"
        finally:
            await search.aclose()

    said = asyncio.run(ask())
    if pages and not search.can("open_page"):
        raise RecipeError(f"provider {block['provider']!r} opens no pages; take fetch_page out of agent.tools")
    return f"{block['provider']} ({search.settings.mode}); {said}"
