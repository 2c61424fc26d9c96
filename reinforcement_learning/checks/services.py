"""The servers that episodes use: sandbox with its Redis, judge, search."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.recipes import RecipeError
from code_sandbox.client import SandboxClient
from judge.client import Judge, JudgeSettings
from reinforcement_learning.recipe import Recipe


def check_sandbox(recipe: Recipe) -> str:
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
            return f"{len(states)} server(s), room for {sum(state.max_sessions for state in states)} sessions"

    return asyncio.run(ask())


def check_judge(recipe: Recipe) -> str:
    block = recipe.agent.judge
    if not block.base_urls:
        if block.strict_rules:
            return "answers are decided by rules alone"
        raise RecipeError(
            "no judge: set LLM_AS_A_JUDGE_BASE (such as http://10.0.0.5:18901/v1), or agent.judge.strict_rules=true for "
            "data that rules can decide"
        )

    async def ask() -> None:
        judge = Judge(JudgeSettings(base_urls=block.base_urls, model=block.model, prompt=block.prompt))
        try:
            await judge.ping()
        finally:
            await judge.aclose()

    asyncio.run(ask())
    return f"{block.model} at {', '.join(block.base_urls)}"


def check_search(tool: str, block: dict[str, Any] | None, *, pages: bool) -> str:
    from agent.search.gateway import open_search

    if not block:
        raise RecipeError(f"the tool {tool!r} needs agent.{tool}: {{provider: …}}, or take it out of agent.tools")
    search = open_search(block)
    if search is None:
        return "off"
    asyncio.run(search.aclose())
    if pages and not search.can("open_page"):
        raise RecipeError(f"provider {block['provider']!r} opens no pages; take fetch_page out of agent.tools")
    return f"{block['provider']} ({search.settings.mode})"
