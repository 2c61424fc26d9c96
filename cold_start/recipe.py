"""Recipes of the cold start: ours in `cold_start:`, LLaMA-Factory's own keys in `llamafactory:`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.recipes import RecipeError, explain, find_recipe, parse_override, read_yaml
from code_sandbox.redaction import names_secret

RECIPES = Path(__file__).parent / "recipes"
_OURS = "cold_start."
_REQUIRED = ("model_name_or_path", "template", "output_dir", "cutoff_len", "image_max_pixels")
_NUMBERS = ("cutoff_len", "image_max_pixels", "per_device_train_batch_size", "gradient_accumulation_steps", "max_samples")
_FILLED_IN = ("dataset", "dataset_dir", "media_dir", "eval_dataset", "tokenized_path", "resume_from_checkpoint", "streaming")


class DataSettings(BaseModel):
    """Which conversations are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[str, ...]
    """JSON files of sharegpt conversations, or patterns of them."""
    images_directory: str | None = None
    """Where relative image paths start; by default each file's folder."""
    batch_size: int | None = Field(None, ge=1)
    """Conversations a step for which the values were chosen; with other numbers of GPUs the dry run says how to keep it."""
    on_bad: str = Field("drop", pattern="^(drop|stop)$")
    """Conversations that training would lose or break on: `drop` leaves them out and lists them, `stop` refuses."""


class Recipe(BaseModel):
    """A whole recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cold_start: DataSettings
    llamafactory: dict[str, Any]
    """Passed on as they are; data set and resuming are filled in."""


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `${NAME:-default}` in a value is taken from the environment.

    Args:
        name_or_path: A name in cold_start/recipes, or a path.
        overrides: `key=value` for LLaMA-Factory's keys and `cold_start.key=value` for ours, YAML values.

    Raises:
        RecipeError: No such recipe, broken YAML, an unknown key, or a required one missing.
    """
    path = find_recipe(RECIPES, name_or_path)
    given = dict(parse_override(override) for override in overrides)
    ours = {key.removeprefix(_OURS): given.pop(key) for key in list(given) if key.startswith(_OURS)}
    try:
        content = read_yaml(path)
        if ours and isinstance(content.get("cold_start"), dict):
            content = {**content, "cold_start": content["cold_start"] | ours}
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path} is no cold-start recipe: {explain(error, Recipe)}") from error
    settings = dict(recipe.llamafactory) | given
    problems = list(_problems(settings))
    if problems:
        raise RecipeError("; ".join(f"{path.name} {problem}" for problem in problems))
    return recipe.model_copy(update={"llamafactory": settings})


def _problems(settings: dict[str, Any]) -> Iterator[str]:
    for key in _REQUIRED:
        if settings.get(key) in (None, ""):
            yield f"lacks llamafactory.{key}; set it there or as `{key}=...`"
    for key in filter(names_secret, settings):
        yield f"sets llamafactory.{key}: a secret does not stand in a recipe, which is recorded; export HF_TOKEN instead"
    for key in ("output_dir", "model_name_or_path"):
        if any(char.isspace() for char in str(settings.get(key, ""))):
            yield f"has llamafactory.{key} {settings[key]!r}; LLaMA-Factory splits its command at spaces"
    for key in _FILLED_IN:
        if settings.get(key) is not None:
            yield f"sets llamafactory.{key}, which is filled in: the data is what cold_start.files names; take it out"
    for key in _NUMBERS:
        value = settings.get(key)
        if value not in (None, "") and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            yield f"has llamafactory.{key} {value!r}; expected a whole number of at least 1"
    for key, value in (("stage", "sft"), ("do_train", True)):
        if settings.get(key, value) != value:
            yield f"has llamafactory.{key} {settings[key]!r}; a cold start has {value!r}"
