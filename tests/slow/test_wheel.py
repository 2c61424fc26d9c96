"""What `pip install deepeyes` brings works outside the repository, and says which extra is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
REPOSITORY = Path(__file__).parents[2]
LIGHT = "sandbox,search,view,judge,data,eval,curate"
FOLDERS_OF_DATA = ("recipes", "prompts", "deploy", "scripts")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), f"{folder}/source"]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


class Installed:
    """An environment of its own, outside the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def install(self, what: str) -> None:
        subprocess.run([str(self.folder / "venv/bin/pip"), "install", "-q", what], check=True, env=self.environment)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "venv/bin/deepeyes"), *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    environment = Installed(tmp_path_factory.mktemp("bare"))
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def light(bare, wheel):
    """The same environment with every extra that needs no torch; its tests come after those of the bare one."""
    bare.install(f"{wheel}[{LIGHT}]")
    return bare


def test_every_recipe_prompt_and_page_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    packages = {path.split("/")[0] for path in inside if path.endswith("__init__.py")}
    assert {f"{package}/py.typed" for package in packages} <= inside
    expected = [
        str(path.relative_to(REPOSITORY))
        for package in packages
        for path in (REPOSITORY / package).rglob("*")
        if "node_modules" not in path.parts
        and (path.suffix in (".yaml", ".txt", ".html", ".js", ".css") or path.parent.name in FOLDERS_OF_DATA)
        and path.suffix in (".yaml", ".json", ".txt", ".html", ".js", ".css", ".sh")
    ]
    assert len(expected) > 40
    plotting = [f"viewer/node_modules/uplot/{name}" for name in ("LICENSE", "dist/uPlot.esm.js", "dist/uPlot.min.css")]
    assert not [name for name in expected + plotting if name not in inside]


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("doctor", "--help"), ("plan", "qwen2_5_vl_7b"), ("data", "fetch", "--help")])
def test_the_bare_package_runs_what_needs_no_extra(bare, arguments):
    done = bare.run(*arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("view", "runs"), "view"),
        (("sandbox", "serve"), "sandbox"),
        (("search", "index", "pages.md"), "search"),
        (("data", "make", "chain", "chain"), "search"),
        (("contamination", "a", "b"), "eval"),
        (("sft", "tiny_cpu", "--dry-run"), "sft"),
        (("rl", "tiny_cpu", "--dry-run"), "rl"),
    ],
)
def test_a_command_without_its_extra_names_it(bare, arguments, extra):
    (bare.folder / "pages.md").write_text("# Ertholm\nIt has a lighthouse.\n")
    done = bare.run(*arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert "Traceback" not in said
    assert "pip install 'deepeyes[" in said
    assert extra in said.split("deepeyes[")[1].split("]")[0]
    assert not (bare.folder / "pages.md.index").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sandbox", "doctor"), "level"),
        (("sandbox", "serve", "--help"), "--backend"),
        (("view", "--help"), "usage"),
        (("judge", "--question", "How many?", "--gold", "0.5", "--answer", "1/2"), "correct"),
        (("data", "make", "chain", "chain"), "chain"),
        (("data", "stats", "pages.jsonl"), "1"),
        (("search", "index", "pages.jsonl"), "1"),
        (("search", "query", "lighthouse", "--index", "pages.jsonl.index"), "Ertholm"),
        (("eval", "--help"), "--benchmark"),
        (("curate", "run", "--help"), "usage"),
    ],
)
def test_one_command_of_each_extra_runs(light, arguments, said):
    page = {"title": "Ertholm", "text": "Ertholm has a lighthouse.", "url": "https://example.org/e"}
    (light.folder / "pages.jsonl").write_text(json.dumps(page) + "\n")
    done = light.run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_recipes_of_the_trainers_are_found_from_the_wheel(wheel, tmp_path):
    """The packages of `sft` and `rl` are taken from the environment of the tests; the rooms from the wheel."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "rooms")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "rooms"), "PYTHONSAFEPATH": "1"}
    for command in ("sft", "rl"):
        done = subprocess.run(
            [sys.executable, "-m", "deepeyes.cli", command, "tiny_cpu", "--dry-run", "--show-recipe"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert "no recipe" not in done.stderr
        assert "runs/quickstart" in done.stdout
        assert str(REPOSITORY) not in done.stdout.replace(sys.prefix, "")
