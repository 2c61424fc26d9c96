"""verl's configuration looked at by verl's own classes, before anything is started."""

from __future__ import annotations

import contextlib
import io
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_NUMBERS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_BUILT = ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm", "critic")
"""Blocks whose dataclass the trainer makes. That of the model loads the tokenizer and is checked with the model."""


def problems_of(verl: Mapping[str, Any], verl_extra: Mapping[str, Any]) -> list[str]:
    """What verl would refuse of a recipe's `verl:` and `verl_extra:`, one line each; empty if nothing."""
    from reinforcement_learning.verl_adapter import plugin

    plugin.load()
    from reinforcement_learning.verl_adapter.launch import UnknownVerlKey, compose_config

    try:
        defaults, config = compose_config({}, {}), compose_config(verl, verl_extra)
    except UnknownVerlKey as error:
        return [str(error)]
    problems = [problem for path, value in leaves(verl) if (problem := _wrong_type(config, defaults, path, value))]
    if problems:
        return problems
    return _refused_by_verl(config)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _wrong_type(config: DictConfig, defaults: DictConfig, path: str, value: Any) -> str:
    """A sentence if a value is of another type than verl's class, or its default, has; empty if it fits."""
    if value is None:
        return ""
    parent_path, _, name = path.rpartition(".")
    hint = _hint(OmegaConf.select(config, parent_path) if parent_path else config, name)
    if hint is None:
        default = _plain(defaults, path)
        # Where no class says more, a default tells numbers and blocks apart; lists and texts often stand for one another.
        hint = type(default) if isinstance(default, bool | int | float | dict) else None
    if hint is None or _fits(value, hint):
        return ""
    return f"verl.{path}={value!r}: expected {_name(hint)}, not {_name(type(value))}"


def _plain(config: DictConfig, path: str) -> Any:
    try:
        value = OmegaConf.select(config, path)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _hint(node: Any, name: str) -> Any:
    """The type that the dataclass of a block gives to a field; None if it has none."""
    try:
        target = node.get("_target_") if isinstance(node, DictConfig) else None
    except OmegaConfBaseException:
        return None
    if not isinstance(target, str) or "." not in target:
        return None
    from hydra.utils import get_class

    try:
        owner = get_class(target)
        hints = typing.get_type_hints(owner)
    except (ImportError, NameError, TypeError, ValueError, AttributeError):
        return None
    except Exception as error:  # noqa: BLE001 - Hydra wraps whatever an optional back-end raises on import
        del error
        return None
    if not is_dataclass(owner) or name not in {item.name for item in fields(owner)}:
        return None
    return hints.get(name)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    kind = origin or hint
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if kind in (list, tuple):
        return isinstance(value, list | tuple)
    if is_dataclass(kind):
        return isinstance(value, Mapping)
    return True


def _name(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_name(part) for part in typing.get_args(hint) if part is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    kind = origin or hint
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    return {dict: "a block", list: "a list", tuple: "a list"}.get(kind, "a block" if is_dataclass(kind) else str(kind))


def _refused_by_verl(config: DictConfig) -> list[str]:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config
    from verl.utils.device import auto_set_device

    said = io.StringIO()
    problems = []
    # What verl prints and warns of while it reads values is no finding of the check.
    with contextlib.redirect_stdout(said), warnings.catch_warnings(action="ignore"):
        for path in _BUILT:
            block = OmegaConf.select(config, path)
            if block is None or "_target_" not in block or (path == "critic" and not need_critic(config)):
                continue
            if problem := _problem(path, lambda block=block: omega_conf_to_dataclass(block)):  # type: ignore[misc]
                problems.append(problem)
        if not problems:
            auto_set_device(config)
            reference, critic = need_reference_policy(config), need_critic(config)
            problem = _problem("", lambda: validate_config(config=config, use_reference_policy=reference, use_critic=critic))
            problems += [problem] if problem else []
    return problems


def _problem(path: str, build: Any) -> str:
    try:
        build()
    except Exception as error:  # noqa: BLE001 - whatever verl says is what the user must read
        cause = error.__cause__ or error
        where = f"verl.{path}: " if path else "verl: "
        return where + " ".join(str(cause).split())[:500]
    return ""
