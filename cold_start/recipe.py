"""Recipes of the cold start: ours in `cold_start:`, LLaMA-Factory's own keys in `llamafactory:`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.recipes import RecipeError, find_recipe, parse_override, read_yaml

RECIPES = Path(__file__).parent / "recipes"


class DataSettings(BaseModel):
    """Which conversations are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[str, ...]
    """JSON files of sharegpt conversations, or patterns of them."""
    images_directory: str | None = None
    """Where relative image paths start; by default each file's folder."""
    on_bad: str = Field("drop", pattern="^(drop|stop)$")
    """Conversations that training would lose or break on: `drop` leaves them out and lists them, `stop` refuses."""


class Recipe(BaseModel):
    """A whole recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cold_start: DataSettings
    llamafactory: dict[str, Any]
    """Passed on as they are; `dataset`, `dataset_dir` and resuming are filled in."""


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `${NAME:-default}` in a value is taken from the environment.

    Args:
        name_or_path: A name in cold_start/recipes, or a path.
        overrides: `key=value` for LLaMA-Factory keys, YAML values.

    Raises:
        RecipeError: No such recipe, broken YAML, an unknown key, or a required one missing.
    """
    path = find_recipe(RECIPES, name_or_path)
    try:
        recipe = Recipe.model_validate(read_yaml(path))
    except ValidationError as error:
        raise RecipeError(f"{path} is no cold-start recipe: {error}") from error
    settings = dict(recipe.llamafactory) | dict(parse_override(override) for override in overrides)
    for key in ("model_name_or_path", "template", "output_dir", "cutoff_len", "image_max_pixels"):
        if settings.get(key) in (None, ""):
            raise RecipeError(f"{path} lacks llamafactory.{key}; set it there or as `{key}=...`")
    for key in ("output_dir", "model_name_or_path"):
        if any(char.isspace() for char in str(settings[key])):
            raise RecipeError(f"llamafactory.{key} is {settings[key]!r}; LLaMA-Factory splits its command at spaces")
    return recipe.model_copy(update={"llamafactory": settings})
