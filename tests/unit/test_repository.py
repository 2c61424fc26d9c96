"""What a reader relies on: the README is true, links lead somewhere, modules import without doing anything."""

import ast
import collections
import importlib.util
import os
import re
import subprocess
import sys

import pytest
import yaml

from agent.data_folders import FOLDERS
from data.commands import ACTIONS
from tests.conftest import ROOT

FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
MARKDOWN = [name for name in FILES if name.endswith(".md")]
ROOMS = (
    "agent",
    "code_sandbox",
    "judge",
    "cold_start",
    "reinforcement_learning",
    "evaluation",
    "data",
    "serving",
    "viewer",
    "curation",
    "deepeyes",
)
MODULES = [name for name in FILES if name.endswith(".py") and name.split("/")[0] in ROOMS]
README = (ROOT / "README.md").read_text()


def test_the_tree_in_the_readme_is_the_repository():
    tree = README.split("## Rooms\n\n```\n")[1].split("```")[0]
    named = {line.split("/")[0] for line in tree.splitlines() if not line.startswith(" ")}
    assert named == {name.split("/")[0] for name in FILES if "/" in name and not name.startswith(".")}


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_relative_link_leads_to_a_file(name):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text()):
        assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_script_a_document_names_exists(name):
    for path in re.findall(r"\bbash ((?:\./)?[\w./-]+\.sh)", (ROOT / name).read_text()):
        upstream = path.startswith("./") or path.startswith("examples/")
        assert upstream or (ROOT / path).is_file(), f"{name} names {path}"


def test_every_program_that_a_document_or_a_script_names_can_be_run():
    named = {
        module.rstrip(".")
        for name in FILES
        if name.endswith((".md", ".py", ".sh", ".yaml", ".service", "Dockerfile")) and not name.startswith("tests/")
        for module in re.findall(r"(?:python\d?|\$python\"|bin/python) -m ([\w.]+)", (ROOT / name).read_text())
    }
    ours = {module for module in named if module.split(".")[0] in {*ROOMS, "benchmarks", "scripts", "tests"}}
    assert {"code_sandbox.server", "viewer", "judge.doctor", "data.fetch"} <= ours
    assert named - ours <= {"pytest", "pip", "venv"}
    for module in ours:
        path = ROOT / module.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert path.is_file(), f"python -m {module}"
        assert '\nif __name__ == "__main__":\n' in path.read_text(), f"python -m {module}"


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_deepeyes_command_a_document_names_is_understood(name):
    from deepeyes.cli import main

    for command, action in re.findall(
        r"deepeyes (doctor|sandbox|search|judge|data|chat|view|plan|eval|leaderboard|compare|rejudge|export|contamination|curate)(?: ([a-z]+)\b)?",
        (ROOT / name).read_text(),
    ):
        words = (
            [command, action]
            if command in ("sandbox", "search", "data")
            and action
            in ("serve", "run", "attack", "bench", "doctor", "index", "query", "stats", "export", "merge", *ACTIONS)
            else [command]
        )
        with pytest.raises(SystemExit) as exit_:
            main([*words, "--help"])
        assert exit_.value.code == 0


def test_every_environment_variable_of_the_recipes_and_rooms_is_in_the_readme():
    used = {variable for variable in FOLDERS.values() if variable}
    for name in FILES:
        if name.endswith(".yaml"):
            used |= set(re.findall(r"\$\{([A-Z_]+)", (ROOT / name).read_text()))
        if name in MODULES and not name.startswith("reinforcement_learning/verl_adapter/cpu"):
            used |= set(re.findall(r"(?:environ(?:\.get)?[\[(]|api_key\(.*)\"([A-Z_]+)\"", (ROOT / name).read_text()))
    used -= {
        "PATH",
        "LD_LIBRARY_PATH",
        "IPYTHONDIR",
        "VERL_PLATFORM",
        "XDG_CACHE_HOME",
        "PYTHONPATH",
        "CUDA_VISIBLE_DEVICES",
    }
    table = set(re.findall(r"`([A-Z_]+)`", README.split("## Settings")[1].split("##")[0]))
    assert used <= table, used - table
    assert table - used <= {"RAY_ADDRESS", "RAY_AUTH_MODE"}, table - used


CHINESE = (ROOT / "README.zh-CN.md").read_text()


@pytest.mark.parametrize(
    "parts",
    [
        lambda text: re.findall(r"^#+(?= )", text, re.MULTILINE),
        lambda text: re.findall(r"```bash\n.*?```", text, re.DOTALL),
        lambda text: [line.split()[0] for line in text.splitlines() if re.match(r"[a-z_]+/ ", line)],
        lambda text: [line.count("|") for line in text.splitlines() if line.startswith("|")],
        lambda text: sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))),
        lambda text: sorted(set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.zh-CN.md"}),
        lambda text: re.findall(r"\d+ %|\d+ GiB|\b136\b", text),
        lambda text: re.findall(r"^(?:- |\d\. )", text, re.MULTILINE),
    ],
    ids=["headings", "commands", "rooms", "tables", "code", "links", "numbers", "lists"],
)
def test_both_readmes_say_the_same_section_by_section(parts):
    assert parts(CHINESE) == parts(README)


def test_continuous_integration_runs_the_readmes_test_command():
    assert "bash scripts/test.sh" in (ROOT / ".ci/run").read_text()
    assert "```bash\nbash scripts/test.sh\n```" in README
    assert "```bash\nbash scripts/quickstart.sh\n```" in README


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".sh", ".py", ".yaml", ".toml", ".md", ".lock"))])
def test_no_file_names_a_path_of_one_machine(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"(?<![\w.])/(?:root|home|Users|work)/\w", text.replace("/root/LMUData", "")), name


@pytest.mark.parametrize("name", MODULES)
def test_no_source_file_is_too_long_to_read(name):
    assert len((ROOT / name).read_text().splitlines()) <= 400


IMPORT_ALL = """
import builtins, importlib, io, socket, subprocess, sys
def refuse(*args, **kwargs):
    raise AssertionError("work at import")
real_open = io.open
def guarded(file, mode="r", *args, **kwargs):
    if set(mode) & set("wax+"):
        refuse()
    return real_open(file, mode, *args, **kwargs)
for name in sys.argv[1:]:
    pass
import asyncio, ctypes, numpy, PIL.Image, httpx, pydantic, rich.progress, fastapi, uvicorn, redis.asyncio, psutil, zmq.asyncio, jupyter_client
socket.socket.connect = subprocess.Popen.__init__ = refuse
builtins.open = io.open = guarded
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"torch", "verl", "ray", "vllm", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_any_module_opens_no_connection_writes_no_file_and_loads_nothing_heavy():
    names = [
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in MODULES
        if "verl_adapter/" not in name
    ]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_found_in_this_repository_and_nowhere_else(room):
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert os.path.dirname(os.path.dirname(spec.origin)) == str(ROOT)


def test_every_yaml_file_is_valid():
    for name in FILES:
        if name.endswith(".yaml"):
            list(yaml.safe_load_all((ROOT / name).read_text()))


DEFINITIONS = [
    (name, node)
    for name in MODULES
    for node in ast.walk(ast.parse((ROOT / name).read_text()))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
]


def test_no_function_is_longer_than_sixty_lines():
    long = {
        f"{name}: {node.name}": node.end_lineno - min(part.lineno for part in (node, *node.decorator_list)) + 1
        for name, node in DEFINITIONS
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {place: lines for place, lines in long.items() if lines > 60} == {}


def test_a_class_name_names_one_thing():
    """Search providers are found by these names in their files; both kinds of training are described by a recipe."""
    allowed = {"Provider": "agent/search/providers/", "Settings": "agent/search/providers/", "Recipe": ""}
    places = collections.defaultdict(set)
    for name, module in DEFINITIONS:
        if isinstance(module, ast.Module):
            for node in module.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].add(name)
    shared = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert {
        name: found
        for name, found in shared.items()
        if name not in allowed or not all(place.startswith(allowed[name]) for place in found)
    } == {}


def test_files_side_by_side_differ_by_more_than_an_s():
    assert [name for name in MODULES if name.replace(".py", "s.py") in MODULES] == []


def test_docstrings_are_sentences_and_not_what_is_left_of_one():
    bare = re.compile(r"(Of|As|From|For|By|In|With|To|At|On) ")
    found = [
        f"{name}: {text.splitlines()[0]}"
        for name, node in DEFINITIONS
        if (text := ast.get_docstring(node)) and bare.match(text)
    ]
    assert found == []


def test_every_program_that_a_docstring_tells_to_run_is_there():
    told = {
        (name, module)
        for name, node in DEFINITIONS
        for module in re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)*)", ast.get_docstring(node) or "")
    }
    assert len(told) > 10
    for name, module in told:
        spec = importlib.util.find_spec(module)
        assert spec is not None, (name, module)
        if spec.submodule_search_locations:
            assert importlib.util.find_spec(f"{module}.__main__") is not None, (name, module)


MOVED = [
    name for name in FILES if name.endswith(".py") and (ROOT / name).read_text().startswith('"""This program has moved to ')
]


@pytest.mark.parametrize("name", MOVED)
def test_a_program_that_has_moved_says_in_one_line_where_to(name):
    module = name.removesuffix(".py").replace("/", ".")
    result = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"{module} has moved: use `")
    (now,) = re.findall(r"has moved to ([\w/.]+)\.$", (ROOT / name).read_text().splitlines()[0].rstrip('"'))
    assert (ROOT / now).is_file()
    for path in re.findall(r"bash ([\w/.]+)`", result.stderr):
        assert (ROOT / path).is_file()
    for new in re.findall(r"python -m ([\w.]+)`", result.stderr):
        assert importlib.util.find_spec(new) is not None


def test_the_programs_that_moved_are_known():
    assert len(MOVED) == 10
