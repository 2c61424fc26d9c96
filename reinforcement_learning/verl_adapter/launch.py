"""Compose verl's configuration from a recipe, and run it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from code_sandbox.redaction import redacted
from reinforcement_learning.failed_groups import RunEnded
from reinforcement_learning.verl_adapter import cluster
from reinforcement_learning.verl_adapter.image_store import STORE_VARIABLE
from reinforcement_learning.verl_adapter.services import SETTINGS_VARIABLE


class UnknownVerlKey(ValueError):
    """A key under `verl:` that verl does not have."""


def compose_config(verl: Mapping[str, Any], verl_extra: Mapping[str, Any]) -> DictConfig:
    """verl's defaults with the recipe's values on top.

    Args:
        verl: Nested values of keys that verl has.
        verl_extra: Dotted names of keys that verl reads but does not list (Hydra's `+key=value`).

    Raises:
        UnknownVerlKey: The message lists the keys that are there.
    """
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    OmegaConf.set_struct(config, True)
    for path, value in _leaves(verl):
        parent_path, _, key = path.rpartition(".")
        try:
            parent = OmegaConf.select(config, parent_path) if parent_path else config
            # `in` would overlook keys whose value verl leaves to be filled in.
            known = isinstance(parent, DictConfig) and key in list(parent.keys())
        except OmegaConfBaseException:
            parent, known = None, False
        if not known:
            keys = ", ".join(sorted(map(str, parent))) if isinstance(parent, DictConfig) else "none, the block is unknown"
            raise UnknownVerlKey(
                f"verl.{path} is no key of verl 0.9.1; in that block there are: {keys}. A key that verl reads without "
                "listing it goes under verl_extra"
            )
        try:
            OmegaConf.update(config, path, value, merge=False)
        except (ConfigKeyError, OmegaConfBaseException) as error:
            raise UnknownVerlKey(f"verl.{path} = {value!r}: {error}") from error
    for path, value in verl_extra.items():
        OmegaConf.update(config, path, value, force_add=True)
    return config


@functools.cache
def verl_default(key: str) -> Any:
    """What verl takes for a dotted key that a recipe does not set; None for one that it does not have."""
    try:
        value = OmegaConf.select(_defaults(), key)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@functools.cache
def _defaults() -> DictConfig:
    return compose_config({}, {})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        found += _leaves(value, f"{path}.") if isinstance(value, Mapping) and value else [(path, value)]
    return found


@ray.remote
class EpisodeTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's task runner in a process that knows our trainer."""

    def run(self, config: DictConfig) -> None:
        """Train; what is printed and logged of the configuration holds no secrets, and Ray has what it needs by now."""
        from reinforcement_learning.verl_adapter import trainer, vllm_server

        vllm_server.register()
        trainer.take_place()
        ray_kwargs = redacted(OmegaConf.to_container(config.ray_kwargs))
        OmegaConf.update(config, "ray_kwargs", ray_kwargs, merge=False)
        super().run(config)


class _OnTheDriversNode:
    """The task runner's class as verl starts it, on the launcher's node: its trainer writes metrics and logs in to wandb
    there, and Ray would put it anywhere.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options

    def options(self, **options: Any) -> _OnTheDriversNode:
        return _OnTheDriversNode(**self._options, **options)

    def remote(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return EpisodeTaskRunner.options(scheduling_strategy=here, **self._options).remote()


def train(config: DictConfig, *, run_directory: Path, agent_settings: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """Write what the workers read, connect to Ray (RAY_ADDRESS, or a local one) and train to the end.

    Raises:
        RunEnded: The run cannot go on; the message says why.
    """
    settings_path = run_directory / "agent_settings.json"
    shown = redacted(dict(agent_settings))
    settings_path.write_text(json.dumps(shown, indent=1), encoding="utf-8")
    loop_path = run_directory / "agent_loop.yaml"
    loop = {
        "name": "deepeyes",
        "_target_": "reinforcement_learning.verl_adapter.agent_loop.EpisodeAgentLoop",
        "settings_path": str(settings_path),
    }
    OmegaConf.save(OmegaConf.create([loop]), loop_path)
    agent = config.actor_rollout_ref.rollout.agent
    agent.agent_loop_config_path, agent.default_agent_loop = str(loop_path), "deepeyes"
    route_groups(config, run_directory)
    env = {**env, STORE_VARIABLE: str(run_directory / "images")}
    if shown != agent_settings:  # passwords in addresses: workers need them, and files of a run are passed on to others
        env |= {SETTINGS_VARIABLE: json.dumps(dict(agent_settings))}
    # A head started elsewhere hands none of our environment to its workers; the runtime environment does.
    OmegaConf.update(config, "ray_kwargs.ray_init.runtime_env.env_vars", cluster.worker_environment(env), force_add=True)
    if cluster.ray_address() is not None:
        ray_init = OmegaConf.to_container(config.ray_kwargs.ray_init)
        OmegaConf.update(config, "ray_kwargs.ray_init", cluster.without_local_keys(ray_init), merge=False)
    auto_set_device(config)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    try:
        run_ppo(config, task_runner_class=_OnTheDriversNode())
    except RayTaskError as error:
        if isinstance(error.cause, RunEnded):
            raise RunEnded(str(error.cause)) from None
        raise
    finally:
        ray.shutdown()


def route_groups(config: DictConfig, run_directory: Path) -> None:
    """All rollouts of a prompt go to one replica, unless the recipe names a router or asks for verl's deterministic one."""
    rollout = config.actor_rollout_ref.rollout
    if rollout.router_config_path or rollout.full_determinism:
        return
    path = run_directory / "router.yaml"
    router = {"router_class": "reinforcement_learning.verl_adapter.router.GroupRouter", "rollouts": int(rollout.n)}
    OmegaConf.save(OmegaConf.create(router), path)
    rollout.router_config_path = str(path)
