"""What must be right before anything expensive starts. A failing check never hides the next one.

In this order, so that what is wrong is said early: the recipe's words, model and machine; then servers; then every row of
the data; at last verl's values, because importing verl takes ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.checks import Check
from agent.errors import EpisodeFailure
from code_sandbox.errors import SandboxError
from reinforcement_learning.checks.capacity import check_disk, check_plan, check_sandbox_capacity, judge_load
from reinforcement_learning.checks.config import check_agent, check_verl
from reinforcement_learning.checks.data import DataFindings, check_batch, check_data, image_costs
from reinforcement_learning.checks.machine import check_attention, check_nodes
from reinforcement_learning.checks.model import check_model
from reinforcement_learning.checks.services import check_judge, check_sandbox, check_search
from reinforcement_learning.checks.trackers import check_trackers
from reinforcement_learning.recipe import Recipe
from reinforcement_learning.row_errors import RowError


@dataclass(slots=True)
class Inspection:
    """All checks of a recipe, and what the one of the data found."""

    checks: list[Check] = field(default_factory=list)
    train: DataFindings = field(default_factory=DataFindings)
    val: DataFindings = field(default_factory=DataFindings)

    @property
    def failed(self) -> list[Check]:
        """Those that found something wrong."""
        return [check for check in self.checks if not check.ok]

    @property
    def dropped(self) -> list[RowError]:
        """Rows that cannot be trained on, of all files."""
        return [*self.train.dropped, *self.val.dropped]


def inspect_recipe(
    recipe: Recipe,
    *,
    verl: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
    say: Callable[[Check], None] | None = None,
    whole: bool = True,
) -> Inspection:
    """Look at everything.

    Args:
        recipe: To be run.
        verl: verl's values and those that it does not list, with all that follows from `run:`; None leaves them unchecked.
        say: Told of each check as soon as it is done.
        whole: Look at verl's values, which takes ten seconds, even where something else is wrong already.
    """
    found = Inspection()
    for name, check in _checks(recipe, found):
        result = _run(name, check)
        found.checks.append(result)
        if say is not None:
            say(result)
    if verl is not None and (whole or not found.failed):
        found.checks.append(_run("verl", lambda: check_verl(*verl)))
        if say is not None:
            say(found.checks[-1])
    return found


def check_recipe(recipe: Recipe) -> list[Check]:
    """All but verl's values, whose import takes ten seconds."""
    return inspect_recipe(recipe).checks


def _checks(recipe: Recipe, found: Inspection) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "tools and prompts", lambda: check_agent(recipe)
    yield "model", lambda: check_model(recipe)
    yield "plan", lambda: check_plan(recipe)
    yield "disk", lambda: check_disk(recipe)
    yield "trackers", lambda: check_trackers(recipe)
    yield "attention", lambda: check_attention(recipe)
    yield "GPUs and nodes", lambda: check_nodes(recipe)
    if "python" in recipe.agent.tools:
        yield "sandbox and Redis", lambda: check_sandbox(recipe)
        if found.checks[-1].ok:
            yield "sandbox capacity", lambda: check_sandbox_capacity(recipe)
    yield "judge", lambda: check_judge(recipe)
    if recipe.agent.judge.base_urls:
        yield "judge load", lambda: judge_load(recipe)
    pages = "fetch_page" in recipe.agent.tools
    if "search" in recipe.agent.tools:
        yield "search", lambda: check_search("search", recipe.agent.search, pages=pages)
    if "image_search" in recipe.agent.tools:
        yield "image_search", lambda: check_search("image_search", recipe.agent.image_search, pages=False)
    yield "train data", lambda: check_data(recipe, recipe.run.train_files, found.train)
    if found.train.files:
        yield "batch", lambda: check_batch(recipe, found.train.usable)
    if recipe.run.val_files:
        yield "validation data", lambda: check_data(recipe, recipe.run.val_files, found.val)
    yield "image tokens", lambda: image_costs(recipe)


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (ValueError, OSError, LookupError, SandboxError, EpisodeFailure) as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding: the others, and the verdict, still follow
        how = ": pip install 'deepeyes[rl,gpu]'" if isinstance(error, ModuleNotFoundError) else ""
        return Check(name, False, f"{type(error).__name__}: {error}{how}")
