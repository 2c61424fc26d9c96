"""verl's own classes on every recipe, and on values that people paste."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CODE = """
from reinforcement_learning.recipe import RECIPES, load_recipe
from reinforcement_learning.verl_adapter.verl_values import problems_of
for path in sorted(RECIPES.glob("[!_]*.yaml")):
    recipe = load_recipe(path.stem)
    print("RECIPE", path.stem, problems_of(recipe.verl, recipe.verl_extra))
recipe = load_recipe("tiny_cpu")
for override in ("verl.trainer.logger=console", "verl.algorithm.gamma=1", "verl.data.seed=3", "verl.trainer.total_training_steps=5"):
    changed = load_recipe("tiny_cpu", [override])
    print("TAKEN", override, problems_of(changed.verl, changed.verl_extra))
"""


def test_verl_takes_every_recipe_and_whatever_it_takes_itself():
    env = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], env=env, capture_output=True, text=True, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith(("RECIPE", "TAKEN"))]
    assert len(lines) >= 9, result.stderr[-2000:]
    assert all(line.endswith(" []") for line in lines), "\n".join(lines)
