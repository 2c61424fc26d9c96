"""The recipes against verl's own configuration. Importing verl takes ten seconds, so all of it is one process."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CODE = """
import sys
from reinforcement_learning.recipe import load_recipe, RECIPES
from reinforcement_learning.verl_adapter.launch import UnknownVerlKey, compose_config
for path in sorted(RECIPES.glob("[!_]*.yaml")):
    recipe = load_recipe(path.stem)
    config = compose_config(recipe.verl, recipe.verl_extra)
    assert config.trainer.v1.trainer_mode == "episode_sync"
    assert config.algorithm.adv_estimator == "grpo"
    print("LOADED", path.stem)
for wrong, expected in (({"trainer": {"nnode": 1}}, "nnodes"), ({"algoritm": {"x": 1}}, "the block is unknown")):
    try:
        compose_config(wrong, {})
    except UnknownVerlKey as error:
        assert expected in str(error), error
        print("REFUSED")
"""


def test_every_recipe_is_a_configuration_of_verl_and_a_wrong_key_lists_the_right_ones():
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], env=env, capture_output=True, text=True, timeout=110, check=False
    )
    assert result.stdout.count("LOADED") == 4, result.stderr[-2000:]
    assert result.stdout.count("REFUSED") == 2
