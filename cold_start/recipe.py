"""Recipes of the cold start: ours in `cold_start:`, LLaMA-Factory's own keys in `llamafactory:`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECIPES = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """The recipe cannot be used as it stands."""


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
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}; there are {names}, or give the path of a .yaml file")
    try:
        content = yaml.safe_load(expand_environment(path.read_text(encoding="utf-8")))
        recipe = Recipe.model_validate(content)
    except (yaml.YAMLError, ValidationError) as error:
        raise RecipeError(f"{path} is no cold-start recipe: {error}") from error
    settings = dict(recipe.llamafactory)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"override {override!r} is no key=value")
        settings[key] = yaml.safe_load(value)
    for key in ("model_name_or_path", "template", "output_dir", "cutoff_len", "image_max_pixels"):
        if settings.get(key) in (None, ""):
            raise RecipeError(f"{path} lacks llamafactory.{key}; set it there or as `{key}=...`")
    for key in ("output_dir", "model_name_or_path"):
        if any(char.isspace() for char in str(settings[key])):
            raise RecipeError(f"llamafactory.{key} is {settings[key]!r}; LLaMA-Factory splits its command at spaces")
    return recipe.model_copy(update={"llamafactory": settings})


def expand_environment(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}`.

    Raises:
        RecipeError: A variable without default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[3]
        found = os.environ.get(name) or default
        if found is None:
            raise RecipeError(f"the recipe needs the environment variable {name}; set it, or write ${{{name}:-default}}")
        return found

    return re.sub(r"\$\{([A-Z][A-Z0-9_]*)(:-([^}]*))?\}", value, text)
