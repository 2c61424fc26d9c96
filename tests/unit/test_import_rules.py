"""The rules of who may import whom name every room, and notice an import that breaks them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RULES = PROJECT["tool"]["importlinter"]
FILES = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PACKAGES = {name.removesuffix("/__init__.py").replace("/", ".") for name in FILES if name.endswith("/__init__.py")}
ROOMS = {name for name in PACKAGES if "." not in name} - {"tests", "scripts"}
"""`scripts` holds nothing but old names that say where they went; see tests/unit/test_repository.py."""


def names_in(layers):
    return [name.strip() for layer in layers for name in re.split(r"[|:]", layer)]


def contract(words):
    (found,) = [one for one in RULES["contracts"] if words in one["name"]]
    return found


def test_every_top_level_package_has_its_place_in_the_rules():
    assert set(RULES["root_packages"]) == ROOMS
    assert sorted(names_in(contract("Rooms import downwards")["layers"])) == sorted(ROOMS)
    assert set(contract("in a circle")["ancestors"]) == ROOMS
    assert set(contract("Only the adapter")["source_modules"]) == ROOMS
    assert set(PROJECT["tool"]["mypy"]["packages"]) == ROOMS
    beside = [name for name in FILES if "/" not in name]
    assert beside == ["setup.py"], "a module beside the rooms belongs into one; setuptools looks for its own there"


@pytest.mark.parametrize("words", ["the way of its data", "checks know the adapter", "client knows nothing"])
def test_the_rules_inside_a_room_name_all_that_stands_in_it(words):
    rule = contract(words)
    (room,) = rule["containers"]
    parts = {name.split("/")[1].removesuffix(".py") for name in FILES if name.startswith(f"{room}/")}
    assert rule["exhaustive"] is True
    ignored = set(rule.get("exhaustive_ignores", ()))
    assert set(names_in(rule["layers"])) == parts - {"__init__"} - ignored
    for name in ignored:
        assert (ROOT / room / f"{name}.py").read_text().startswith('"""This program has moved to ')


def test_what_is_installed_is_every_package_but_those_of_a_checkout():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {
        name for name in PACKAGES if name.split(".")[0] in ROOMS - {"benchmarks"}
    }


@pytest.mark.parametrize("room", ["code_sandbox", "serving"])
def test_a_room_on_the_ground_imports_no_other(room):
    others = "|".join(sorted(ROOMS - {room}))
    for name in FILES:
        if name.startswith(f"{room}/"):
            found = re.findall(rf"^\s*(?:from|import) ({others})\b", (ROOT / name).read_text(), re.MULTILINE)
            assert not found, f"{name} imports {found}"


PLANTED = {
    "serving/urls.py": ("import judge.verdict", "Rooms import downwards only"),
    "agent/errors.py": ("import agent.episode", "In no room do files or folders import each other in a circle"),
    "evaluation/benchmarks/vstar.py": ("import evaluation.runs.folder", "Evaluation imports against the way of its data"),
    "reinforcement_learning/verl_adapter/node_probe.py": ("import reinforcement_learning.checks", "checks know the adapter"),
    "code_sandbox/client.py": ("import code_sandbox.server.settings", "client knows nothing of its server"),
    "judge/rules.py": ("import torch", "The shared rooms stay light"),
    "benchmarks/loop_overhead.py": (
        "import code_sandbox.server.app",
        "Nobody but the command line imports the sandbox server",
    ),
    "reinforcement_learning/rows.py": ("import verl", "Only the adapter imports verl and ray"),
    "data/tiles.py": ("import transformers", "Data loads no trainer and no model of its own"),
}


def broken_rules(directory):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "500"}
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert f"{len(RULES['contracts'])} kept, 0 broken" in result.stdout or result.returncode == 1, result.stderr[-2000:]
    return re.findall(r"^(.+?) BROKEN", result.stdout, re.MULTILINE)


def test_an_import_that_breaks_a_rule_is_noticed(tmp_path):
    for name in [*FILES, "pyproject.toml"]:
        if name.split("/")[0] in ROOMS | {"pyproject.toml"}:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    assert broken_rules(tmp_path) == []
    for name, (line, _) in PLANTED.items():
        with (tmp_path / name).open("a") as file:
            file.write(f"\n\ndef _planted():\n    {line}\n")
    broken = broken_rules(tmp_path)
    assert len(broken) == len(RULES["contracts"])
    for _, words in PLANTED.values():
        assert any(words in name for name in broken), words
