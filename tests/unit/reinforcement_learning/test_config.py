"""The recipes against verl's own configuration. Importing verl takes ten seconds, so all of it is one process."""

import os
import subprocess
import sys

import pytest

from reinforcement_learning.recipe import RECIPES
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CODE = """
import sys
from omegaconf import OmegaConf
from reinforcement_learning.plan_values import VERL_DEFAULTS
from reinforcement_learning.recipe import load_recipe, RECIPES
from reinforcement_learning.verl_adapter.launch import UnknownVerlKey, compose_config
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
FILTER = "verl.algorithm.filter_groups={enable: true, metric: acc}"
for path in sorted(RECIPES.glob("[!_]*.yaml")):
    for overrides in ([], [FILTER]):
        recipe = load_recipe(path.stem, overrides)
        config = compose_config(recipe.verl, recipe.verl_extra)
        OmegaConf.update(config, "actor_rollout_ref.model.path", sys.argv[1])
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
        for block in ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model", "algorithm"):
            omega_conf_to_dataclass(OmegaConf.select(config, block))
    assert config.trainer.v1.trainer_mode == "sync"
    assert config.algorithm.adv_estimator == "grpo"
    print("LOADED", path.stem)
defaults = compose_config({}, {})
for key, value in VERL_DEFAULTS.items():
    assert OmegaConf.select(defaults, key) == value, key
for wrong, expected in (({"trainer": {"nnode": 1}}, "nnodes"), ({"algoritm": {"x": 1}}, "the block is unknown")):
    try:
        compose_config(wrong, {})
    except UnknownVerlKey as error:
        assert expected in str(error), error
        print("REFUSED")
"""


def test_every_recipe_passes_verls_own_checks_a_wrong_key_lists_the_right_ones_and_plans_know_verls_defaults(toy):
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, str(toy / "models/base")],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    recipes = list(RECIPES.glob("[!_]*.yaml"))
    assert result.stdout.count("LOADED") == len(recipes) >= 8, result.stderr[-2000:]
    assert result.stdout.count("REFUSED") == 2


JOIN = """
import os, sys
from pathlib import Path
from omegaconf import OmegaConf
from reinforcement_learning.recipe import load_recipe
from reinforcement_learning.verl_adapter import launch
recipe = load_recipe("tiny_cpu")
given = []
launch.run_ppo = lambda config, task_runner_class: given.append(OmegaConf.to_container(config.ray_kwargs.ray_init))
for address in ("", "10.0.0.1:6380"):
    os.environ["RAY_ADDRESS"] = address
    config = launch.compose_config(recipe.verl, recipe.verl_extra)
    launch.train(config, run_directory=Path(sys.argv[1]), agent_settings={}, env={"VERL_PLATFORM": "cpu"})
local, joined = given
assert local["num_gpus"] == 1 and local["num_cpus"] == 16, local
# Ray: "When connecting to an existing cluster, num_cpus and num_gpus must not be provided."
assert not {"num_gpus", "num_cpus", "include_dashboard"} & set(joined), joined
assert local["runtime_env"]["env_vars"] == joined["runtime_env"]["env_vars"]
assert joined["runtime_env"]["env_vars"]["VERL_PLATFORM"] == "cpu"
print("JOINS")
"""


def run_on_cpu(code, directory, *, printing):
    """Run a program whose verl is that of a CPU, and see that it came to its end."""
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-c", code, str(directory)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert printing in result.stdout, result.stderr[-2000:]


def test_a_cpu_recipe_joins_a_cluster_without_the_arguments_that_size_a_local_one(tmp_path):
    run_on_cpu(JOIN, tmp_path, printing="JOINS")


SECRETS = """
import json, os, sys
from pathlib import Path
from omegaconf import OmegaConf
from reinforcement_learning.recipe import load_recipe
from reinforcement_learning.verl_adapter import launch
from reinforcement_learning.verl_adapter.services import SETTINGS_VARIABLE, read_settings
secret, directory = "http://user:hunter2-and-3@127.0.0.1:9", Path(sys.argv[1])
recipe = load_recipe("tiny_cpu", [f"agent.sandbox_urls=[{secret}]"])
given = []
launch.run_ppo = lambda config, task_runner_class: given.append(config)
config = launch.compose_config(recipe.verl, recipe.verl_extra)
agent = recipe.agent.model_dump(mode="json")
launch.train(config, run_directory=directory, agent_settings=agent, env={"HTTPS_PROXY": secret})
(config,) = given
env = config.ray_kwargs.ray_init.runtime_env.env_vars
assert env.HTTPS_PROXY == secret
os.environ[SETTINGS_VARIABLE] = env[SETTINGS_VARIABLE]
assert read_settings(str(directory / "agent_settings.json")).sandbox_urls == (secret,)
runner = launch.EpisodeTaskRunner.__ray_metadata__.modified_class
logged = []
runner.__mro__[1].run = lambda self, config: logged.append(str(OmegaConf.to_container(config, resolve=True)))
runner.run(object.__new__(runner), config)
assert len(logged) == 1 and "HTTPS_PROXY" in logged[0], logged
assert "hunter2" not in logged[0], logged[0]
files = [path for path in directory.rglob("*") if path.is_file()]
assert len(files) >= 2 and not [path for path in files if "hunter2" in path.read_text()], files
print("HIDDEN")
"""


def test_what_verl_prints_and_logs_and_what_a_run_writes_holds_no_secret(tmp_path):
    run_on_cpu(SECRETS, tmp_path, printing="HIDDEN")
