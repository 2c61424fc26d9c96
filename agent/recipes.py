"""Finding and reading recipe files; what stands in them is each room's own business.

A value may hold `${NAME}` or `${NAME:-default}`, taken from the environment, `${shared.NAME}`, taken from
agent/shared.yaml, and `${data.NAME}`, a folder of agent/data_folders.py, which a default may hold too. Numbers follow YAML
1.2, as LLaMA-Factory and verl read them: `1e-5` is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agent.data_folders import data_folder
from code_sandbox.command_line import problem_line

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-((?:\$\{data\.\w+\}|[^}])*))?\}")
_DATA_FOLDER = re.compile(r"\$\{data\.(\w+)\}")
_SHARED_NAME = re.compile(r"\$\{shared\.(\w+)\}")
_SHARED = Path(__file__).parent / "shared.yaml"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, with the numbers of YAML 1.2."""


# As OmegaConf has it, through which LLaMA-Factory and verl read their files.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


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
    """Read a file of blocks; `${NAME}`, `${NAME:-default}`, `${data.NAME}` and `${shared.NAME}` are filled in.

    Raises:
        RecipeError: Broken YAML, no mapping, a variable without default that is not set, an unknown folder or shared value.
    """
    text = _VARIABLE.sub(lambda match: _value(match, path), path.read_text(encoding="utf-8"))
    text = _DATA_FOLDER.sub(lambda match: _folder(match, path), text)
    text = _SHARED_NAME.sub(lambda match: str(shared_value(match[1])), text)
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is broken YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds a {type(content).__name__}; expected named blocks")
    return content


def load_yaml(text: str) -> Any:
    """Parse a YAML text; `1e-5` is a number.

    Raises:
        yaml.YAMLError: Broken YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - a safe loader


def shared_value(name: str) -> Any:
    """A value of agent/shared.yaml.

    Raises:
        RecipeError: There is none of that name; the message lists those there are.
    """
    values = load_yaml(_SHARED.read_text(encoding="utf-8"))
    if name not in values:
        raise RecipeError(f"there is no shared value {name!r}; agent/shared.yaml has {', '.join(sorted(values))}")
    return values[name]


def _value(match: re.Match[str], path: Path) -> str:
    found = os.environ.get(match[1]) or match[2]
    if found is None:
        raise RecipeError(f"{path.name} needs the environment variable {match[1]}; set it")
    return found


def _folder(match: re.Match[str], path: Path) -> str:
    try:
        return str(data_folder(match[1]))
    except LookupError as error:
        raise RecipeError(f"{path.name}: {error.args[0]}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is YAML.

    Raises:
        RecipeError: There is no `=`, or the value is broken YAML.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {text!r} is no key=value, such as agent.max_turns=4")
    try:
        return key, load_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {text!r} has no YAML value: {error}") from error


def explain(error: ValidationError, model: type[BaseModel], *, at_the_top: Callable[[str], str] = lambda _: "") -> str:
    """What is wrong with values that were given for a model, as one line; an unknown name with the list of those there are.

    Args:
        error: Raised by the model.
        model: Whose fields may be models themselves.
        at_the_top: What is added about a name that the model itself does not know.
    """
    lines = []
    for problem in error.errors():
        more = ""
        if problem["type"] == "extra_forbidden":
            owner: Any = model
            for part in problem["loc"][:-1]:
                owner = _within(owner, part)
            more = f"; there are: {', '.join(sorted(owner.model_fields))}"
            if len(problem["loc"]) == 1:
                more += at_the_top(str(problem["loc"][0]))
        lines.append(problem_line(problem, more))
    return "; ".join(lines)


def _within(owner: Any, part: str | int) -> Any:
    """What stands at a place: in a field of a model, or in a mapping or a list of models."""
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        field = owner.model_fields.get(str(part))
        return field.annotation if field else owner
    return next((inner for inner in get_args(owner) if isinstance(inner, type) and issubclass(inner, BaseModel)), BaseModel)
