"""What must be there before anything expensive starts: model, data, disk, Redis and sandbox, judge, search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from code_sandbox.errors import SandboxError
from reinforcement_learning.checks.capacity import check_disk, check_plan, check_sandbox_capacity, judge_load
from reinforcement_learning.checks.data import check_data
from reinforcement_learning.checks.machine import check_attention, check_nodes
from reinforcement_learning.checks.model import check_model
from reinforcement_learning.checks.services import check_judge, check_sandbox, check_search
from reinforcement_learning.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    message: str


def check_recipe(recipe: Recipe) -> list[Check]:
    """Look at everything; a failing check never hides the next one."""
    checks = [
        _run("model", lambda: check_model(recipe.run.model)),
        _run("plan", lambda: check_plan(recipe)),
        _run("disk", lambda: check_disk(recipe)),
        _run("train data", lambda: check_data(recipe.run.train_files)),
    ]
    checks.append(_run("attention", lambda: check_attention(recipe)))
    checks.append(_run("GPUs and nodes", lambda: check_nodes(recipe)))
    if recipe.run.val_files:
        checks.append(_run("validation data", lambda: check_data(recipe.run.val_files)))
    if "python" in recipe.agent.tools:
        checks.append(_run("sandbox and Redis", lambda: check_sandbox(recipe)))
        if checks[-1].ok:
            checks.append(_run("sandbox capacity", lambda: check_sandbox_capacity(recipe)))
    checks.append(_run("judge", lambda: check_judge(recipe)))
    if recipe.agent.judge.base_urls:
        checks.append(_run("judge load", lambda: judge_load(recipe)))
    for tool, block in (("search", recipe.agent.search), ("image_search", recipe.agent.image_search)):
        if tool in recipe.agent.tools:
            pages = tool == "search" and "fetch_page" in recipe.agent.tools
            checks.append(_run(tool, lambda t=tool, b=block, p=pages: check_search(t, b, pages=p)))  # type: ignore[misc]
    return checks


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (ValueError, OSError, LookupError, SandboxError) as error:
        return Check(name, False, str(error))
