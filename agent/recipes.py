"""Finding and reading recipe files; what stands in them is each room's own business."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")


class RecipeError(ValueError):
    """The recipe cannot be used as it stands."""


def find_recipe(directory: Path, name_or_path: str) -> Path:
    """A recipe by its name in a folder, or by its path.

    Raises:
        RecipeError: There is none; the message lists those of the folder. Names that start with `_` are parts of others.
    """
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = directory / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in directory.glob("[!_]*.yaml")))
        raise RecipeError(f"no recipe {name_or_path!r}; there are {names}, or give the path of a .yaml file")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of blocks; `${NAME}` and `${NAME:-default}` are taken from the environment.

    Raises:
        RecipeError: Broken YAML, no mapping, or a variable without default that is not set.
    """
    text = _VARIABLE.sub(lambda match: _value(match, path), path.read_text(encoding="utf-8"))
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is broken YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds a {type(content).__name__}; expected named blocks")
    return content


def _value(match: re.Match[str], path: Path) -> str:
    found = os.environ.get(match[1]) or match[2]
    if found is None:
        raise RecipeError(f"{path.name} needs the environment variable {match[1]}; set it")
    return found


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is YAML.

    Raises:
        RecipeError: There is no `=`, or the value is broken YAML.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {text!r} is no key=value, such as agent.max_turns=4")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {text!r} has no YAML value: {error}") from error
