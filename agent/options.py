"""The settings of an agent on a command line: one option a setting, under its name, with its default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from agent.recipes import RecipeError, explain, load_yaml, read_yaml
from agent.settings import OLD_NAMES, AgentSettings
from agent.setup import from_environment

_DEST = "agent."
_TEXTS = ("prompt", "primer")
_LISTS = ("tools", "sandbox_urls")
_BLOCKS = ("search", "image_search")
_IN_WORDS = {"primer": "that of the prompt"}
_COUNTS = {"max_calls": "{image_search: 1}", "max_in_flight": "{policy: 32}"}
_SERVERS = "mcp"


def add_agent_options(parser: argparse.ArgumentParser, *, instead: Mapping[str, str] | None = None) -> None:
    """Add `--settings` and an option for each setting.

    Args:
        parser: Of a command.
        instead: What the command takes for a setting that is not given, where that is not its default, in words.
    """
    instead = _IN_WORDS | dict(instead or {})
    group = parser.add_argument_group("the agent", "Settings of agent/settings.py, as in `agent:` of RL recipes.")
    group.add_argument(
        "--settings", type=Path, action="append", default=[], metavar="FILE", help="YAML with names and values of settings"
    )
    for name in AgentSettings.model_fields:
        add_option(group, AgentSettings, name, instead.get(name))
    for old in OLD_NAMES:
        group.add_argument(_option(old), type=_refused(old), help=argparse.SUPPRESS)


def add_option(group: Any, model: type[AgentSettings], name: str, default_in_words: str | None = None) -> None:
    """Add the option of one setting; what it is and its default are the model's own words."""
    field = model.model_fields[name]
    default = field.get_default(call_default_factory=True)
    text = " ".join((field.description or "").split()).replace("%", "%%")
    shown = _shown(default) if default_in_words is None else default_in_words
    kind: dict[str, Any] = {"dest": _DEST + name, "default": argparse.SUPPRESS, "help": f"{text} Default: {shown}."}
    if isinstance(default, bool):
        group.add_argument(_option(name), action=argparse.BooleanOptionalAction, **kind)
    else:
        group.add_argument(_option(name), type=_reader(name), metavar=_metavar(name), **kind)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was given: by files, the environment, and above both by options; the defaults are left out.

    Raises:
        RecipeError: A file is broken, or has a name that is no setting.
        OSError: A file cannot be read.
    """
    given: dict[str, Any] = {}
    for path in options.settings:
        content = read_yaml(path)
        try:
            AgentSettings.model_validate(content)
        except ValidationError as error:
            raise RecipeError(f"{path}: {explain(error, AgentSettings)}") from error
        given |= content
    given |= from_environment()
    return given | {name.removeprefix(_DEST): value for name, value in vars(options).items() if name.startswith(_DEST)}


def settings_of(model: type[AgentSettings], given: Mapping[str, Any]) -> Any:
    """Settings out of what was given.

    Raises:
        RecipeError: What is wrong, in one line.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RecipeError(explain(error, model)) from error


def add_recipe(parser: argparse.ArgumentParser, folder: str, *, default: str | None = None, settings: str = "") -> None:
    """Let a command take a recipe and settings that go above it, in any order, and the recipe as `--recipe` too.

    Args:
        parser: Of the command; it reads with `parse_intermixed_args`, and then `take_recipe`.
        folder: Where recipes have names.
        default: The recipe where none is named.
        settings: Whose settings there are, in words.
    """
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE key=value",
        help=f"a name in {folder} or a .yaml file, and settings that go above it{f', {settings}' if settings else ''}",
    )
    parser.add_argument("--recipe", help="the same as the first word" + (f"; by default {default}" if default else ""))


def take_recipe(parser: argparse.ArgumentParser, options: argparse.Namespace, *, default: str | None = None) -> None:
    """Put what was given of `add_recipe` into `options.recipe` and `options.overrides`."""
    options.overrides = [word for word in options.words if "=" in word]
    recipes = [word for word in (options.recipe, *options.words) if word and "=" not in word] or [default]
    if len(recipes) > 1:
        parser.error(f"one recipe at a time, not {' and '.join(recipes)}; a setting is key=value")
    (options.recipe,) = recipes
    if options.recipe is None:
        parser.error("name a recipe, such as qwen2_5_vl_7b; a setting is key=value")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(name: str) -> str:
    if name in _BLOCKS:
        return "PROVIDER|BLOCK"
    if name in _COUNTS:
        return "{NAME: COUNT}"
    if name == _SERVERS:
        return "{NAME: SERVER}"
    return "NAME" if name == "prompt" else "A,B" if name in _LISTS else "TEXT" if name in _TEXTS else "VALUE"


def _shown(default: Any) -> str:
    if isinstance(default, Sequence) and not isinstance(default, str):
        return ",".join(default)
    return "none" if default is None else str(default).replace("%", "%%")


def _reader(name: str) -> Any:
    def read(text: str) -> Any:
        if name in _TEXTS:
            return text
        if name in _LISTS:
            return [part.strip() for part in text.split(",") if part.strip()]
        if text == "none":
            return None
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no YAML value: {error}") from None
        if name in _COUNTS and not isinstance(value, dict):
            wanted = " (episodes at once are --max-episodes)" if name == "max_in_flight" else ""
            raise argparse.ArgumentTypeError(f"{text!r} is no count by name, such as '{_COUNTS[name]}'{wanted}")
        if name == _SERVERS and not isinstance(value, dict):
            raise argparse.ArgumentTypeError(f"{text!r} names no servers, such as '{{files: {{command: [my-server]}}}}'")
        if name not in _BLOCKS:
            return value
        if Path(text).suffix in (".yaml", ".yml"):
            raise argparse.ArgumentTypeError(f"a file of settings is given as --settings {text}")
        return {"provider": value} if isinstance(value, str) else value

    return read


def _refused(old: str) -> Any:
    new = OLD_NAMES[old]

    def refuse(text: str) -> NoReturn:
        value = f"'{{provider: …, path: {text}}}'" if new in _BLOCKS else text
        raise argparse.ArgumentTypeError(f"it is called {_option(new)} now, as in recipes; give {_option(new)} {value}")

    return refuse
