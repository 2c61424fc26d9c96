"""RL recipes: ours in `agent:`, verl's own keys in `verl:`; files may extend others."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.recipes import RecipeError, explain, find_recipe, parse_override, read_yaml
from agent.record_images import record_store
from agent.setup import from_environment
from code_sandbox.redaction import names_secret
from reinforcement_learning.settings import RolloutSettings
from serving.urls import split_urls

RECIPES = Path(__file__).parent / "recipes"


class RunSettings(BaseModel):
    """Where a run reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Folder or hub name of the model to start from."""
    train_files: tuple[str, ...]
    """Parquet files with the published columns; see data/README.md."""
    val_files: tuple[str, ...] = ()
    """None: no validation while training."""
    directory: str
    """Checkpoints, metrics and rollouts go here; an existing run there is resumed."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of every process of the run; no secrets: recipes are recorded, and logged to wandb."""
    image_roots: tuple[str, ...] = ()
    """Folders in which relative image paths of rows are looked for, after the folder of the parquet file."""
    on_bad_rows: Literal["drop", "stop"] = "drop"
    """What is done about rows that cannot be trained on: leave them out, listed in `dropped.jsonl`, or refuse to start."""

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        if found := [name for name in env if names_secret(name)]:
            raise ValueError(f"a secret does not stand in a recipe: export {', '.join(found)} on every node instead")
        return env


_VERL_BLOCKS = (
    "actor_rollout_ref", "algorithm", "critic", "data", "distillation", "global_profiler", "model_engine", "ray_kwargs",
    "reward", "reward_model", "skip", "trainer", "transfer_queue",
)  # fmt: skip
"""What verl's configuration has at its top (verl/trainer/config/ppo_trainer.yaml, verl 0.9.1)."""


class Recipe(BaseModel):
    """A whole recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: RunSettings
    agent: RolloutSettings = Field(default_factory=RolloutSettings)
    verl: dict[str, Any] = Field(default_factory=dict)
    """verl's keys, nested as verl nests them; an unknown one is an error."""
    verl_extra: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys that verl reads but does not list."""


def verl_value(recipe: Recipe, path: str) -> Any:
    """A value of the `verl:` block by its dotted path; None where the recipe says nothing."""
    value: Any = recipe.verl
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), *, overlays: Sequence[str] = ()) -> Recipe:
    """Read a recipe with what it extends, put overlays over it, and apply `a.b=value` overrides (YAML values).

    Overrides of verl's commands, such as `trainer.nnodes=4` or `+data.new=1`, are taken as they are pasted.

    An overlay is a part of a recipe, such as `_no_flash_attn`, by its name in the folder of recipes or by its path.

    Addresses in the environment (CODE_SANDBOX_URL, LLM_AS_A_JUDGE_BASE) win over the file.

    Raises:
        RecipeError: No such recipe or overlay, broken YAML, an unknown key, or a required one missing.
    """
    path = find_recipe(RECIPES, name_or_path)
    content = _read(path, seen=())
    for overlay in overlays:
        content = _merge(content, _read(_find_overlay(overlay), seen=()))
    for override in overrides:
        key, value = parse_override(override)
        content = _merge(content, _nest(_path(key), value))
    content = _merge(content, _addresses())
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path.name} is no RL recipe: {_explain(error)}") from error


def _path(key: str) -> list[str]:
    plain = key.lstrip("+~")
    if plain.partition(".")[0] not in _VERL_BLOCKS:
        return key.split(".")
    # With Hydra's `+` a key is added that verl does not list.
    return ["verl_extra", plain] if key.startswith("+") else ["verl", *plain.split(".")]


def _find_overlay(name_or_path: str) -> Path:
    try:
        return find_recipe(RECIPES, name_or_path)
    except RecipeError:
        names = ", ".join(sorted(file.stem for file in RECIPES.glob("_*.yaml")))
        raise RecipeError(f"no overlay {name_or_path!r}; there are {names}, or give the path of a .yaml file") from None


def _read(path: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise RecipeError(f"{path.name} extends itself: {' -> '.join(file.name for file in (*seen, path))}")
    content = read_yaml(path)
    merged: dict[str, Any] = {}
    for parent in content.pop("extends", []):
        parent_path = path.parent / parent
        if not parent_path.is_file():
            raise RecipeError(f"{path.name} extends {parent}, which is not beside it")
        merged = _merge(merged, _read(parent_path, seen=(*seen, path)))
    return _merge(merged, content)


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _nest(keys: Sequence[str], value: Any) -> dict[str, Any]:
    # Keys under verl_extra are themselves dotted.
    if keys[0] == "verl_extra":
        return {"verl_extra": {".".join(keys[1:]): value}}
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _addresses() -> dict[str, Any]:
    agent = dict(from_environment())
    judges = list(split_urls(os.environ.get("LLM_AS_A_JUDGE_BASE")))
    if judges:
        agent["judge"] = {"base_urls": judges}
    return {"agent": agent} if agent else {}


def _explain(error: ValidationError) -> str:
    return explain(
        error,
        Recipe,
        at_the_top=lambda name: (
            f". Keys of verl are written with verl. before them (verl.{name}), a `+key` of Hydra as verl_extra.key"
        ),
    )


def record_store_of(recipe: Recipe) -> Path | None:
    """The store of data that takes the images of a run's records; None if they lie beside the records.

    Raises:
        RecipeError: `agent.record.images` names no store.
    """
    if not recipe.agent.record.enabled:
        return None
    files = [file for pattern in recipe.run.train_files for file in sorted(glob.glob(pattern))]  # noqa: PTH207
    try:
        return record_store(recipe.agent.record.images, files)
    except ValueError as error:
        raise RecipeError(f"agent.record.images: {error}") from error
