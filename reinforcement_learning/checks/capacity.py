"""Is there room for the run: disk, sandbox sessions, and values of the recipe that cannot work together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlparse

from agent.recipes import RecipeError
from code_sandbox.client import SandboxClient
from code_sandbox.wire import Health
from reinforcement_learning.plan import Plan, make_plan
from reinforcement_learning.plan_advice import advice, contradictions
from reinforcement_learning.plan_values import PUBLISHED_STEPS, episodes_at_once
from reinforcement_learning.recipe import Recipe, record_store_of

_LEAST_BYTES = 1 << 30
"""Asked for where the model's size is not known."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_JUDGE_SLOTS, _JUDGE_ANSWER_S = 64, 1.0
"""Of one judge server; docs/results.md measures 4,096 verdicts in 65 s with them."""


def check_plan(recipe: Recipe) -> str:
    """Values that contradict each other; what else the plan has to say is in the message.

    Raises:
        RecipeError: Two values would end the run at its first long episode, or at its start.
    """
    plan = make_plan(recipe)
    if wrong := contradictions(plan):
        raise RecipeError("; ".join(wrong))
    notes = [f"note: {line}" for line in advice(plan, recipe)]
    return "; ".join([f"{plan.episodes:,} episodes of about {plan.episode_tokens:,} tokens a step", *notes])


def check_disk(recipe: Recipe) -> str:
    """Room for checkpoints and recordings where each is written; what an earlier start of the run left there is reckoned in.

    Raises:
        RecipeError: Too little is free; the message says what is needed for what, where, and what is there. Or
            `agent.record.images` names no store.
    """
    directory = Path(recipe.run.directory).resolve()
    try:
        plan = make_plan(recipe)
    except RecipeError as unknown:
        free = _free(directory)
        if free < _LEAST_BYTES:
            raise RecipeError(
                f"{_existing(directory)} has {_gb(free)} free; a run needs at least {_gb(_LEAST_BYTES)}"
            ) from unknown
        return f"{_gb(free)} free in {_existing(directory)}; what the model needs is not known ({unknown})"
    told = []
    for place, needs in _wanted(recipe, plan, directory).items():
        needed = max(0, sum(needs.values()) - _written(place))
        parts = ", ".join(f"{name} {_gb(size)}" for name, size in needs.items())
        free = _free(place)
        if free < needed:
            raise RecipeError(
                f"{_existing(place)} has {_gb(free)} free; {place} needs {_gb(needed)} more ({parts}). Set run.directory=…, "
                "keep fewer checkpoints (verl.trainer.max_actor_ckpt_to_keep=2), or record less (agent.record.every, "
                "agent.record.max_pixels)"
            )
        told.append(f"{_gb(free)} free in {_existing(place)}, {_gb(needed)} needed ({parts})")
    if (store := record_store_of(recipe)) is not None:
        told.append(f"images of recordings go into the store {store} while it can be written to")
    return "; ".join(told)


def _wanted(recipe: Recipe, plan: Plan, directory: Path) -> dict[Path, dict[str, int]]:
    """What is written where, in bytes; recordings apart only where they go to another disk."""
    steps = min(plan.steps or PUBLISHED_STEPS, PUBLISHED_STEPS)
    recordings = Path(recipe.agent.record_directory or directory / "rollouts").resolve()
    wanted = {
        directory: {
            "checkpoints": plan.disk.checkpoints,
            "the exported model": plan.disk.export,
            "images": plan.disk.images + plan.disk.step_images,
        }
    }
    apart = recordings if _device(recordings) != _device(directory) else directory
    wanted.setdefault(apart, {})[f"recordings of {steps} steps"] = plan.disk.recording_step * steps
    return wanted


def check_sandbox_capacity(recipe: Recipe) -> str:
    """A session for every episode that is in flight at once.

    Raises:
        RecipeError: The servers together have fewer, or a server beyond this machine is asked without a token.
        SandboxError: A server does not answer.
    """
    urls = list(recipe.agent.sandbox_urls)
    distant = [url for url in urls if urlparse(url).hostname not in (*_LOOPBACK, None)]
    if distant and not os.environ.get("CODE_SANDBOX_TOKEN"):
        raise RecipeError(
            f"{distant[0]} is no address of this machine, and its server wants a token: export CODE_SANDBOX_TOKEN here and "
            "before `ray start` on every node"
        )

    async def ask() -> list[Health]:
        async with SandboxClient(urls, wait_s=5.0) as client:
            return await client.health()

    states = asyncio.run(ask())
    needed, there = episodes_at_once(recipe), sum(state.max_sessions for state in states)
    listed = ", ".join(f"{url} {state.max_sessions:,}" for url, state in zip(urls, states, strict=True))
    if there < needed:
        each = -(-needed // len(states))
        raise RecipeError(
            f"{needed:,} episodes may each hold a session at once (data.train_batch_size x rollout.n), and the servers have "
            f"{there:,} ({listed}): start each with --max-sessions {each}, or add servers to CODE_SANDBOX_URL"
        )
    return f"{needed:,} sessions needed, {there:,} there ({listed})"


def judge_load(recipe: Recipe) -> str:
    """How much a step asks of the judge, in words."""
    requests = episodes_at_once(recipe) * recipe.agent.judge.votes
    servers = max(1, len(recipe.agent.judge.base_urls))
    seconds = requests * _JUDGE_ANSWER_S / (_JUDGE_SLOTS * servers)
    return (
        f"at most {requests:,} requests a step: {seconds:,.0f} s if all are asked, and a server answers {_JUDGE_SLOTS} at "
        f"once in {_JUDGE_ANSWER_S:.0f} s"
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _free(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _written(path: Path) -> int:
    """What an earlier start of this run has written; files that vanish meanwhile count nothing."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
