"""Every command of the runbook and of the plan's page can be given as it stands there: scripts, modules, options, recipes."""

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from deepeyes.cli import main
from reinforcement_learning.recipe import RECIPES
from tests.conftest import ROOT

PAGES = ("docs/runbook.md", "docs/plan.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [
    (page, line.split("  #")[0].strip())
    for page, text in TEXTS.items()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.split("#")[0].strip()
]
OF_OTHERS = {"vllm", "redis-server", "export", "ray", "tail", "sbatch"}


def words_of(command):
    """The words after assignments of environment variables, and these."""
    words = shlex.split(command)
    environment = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    return words, environment


def options_of(module):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-500:]
    return set(re.findall(r"--[a-z][a-z-]+", result.stdout))


def test_the_pages_have_commands():
    assert len([page for page, _ in COMMANDS if page == "docs/runbook.md"]) > 20


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_of_the_runbook_exists_with_its_options(page, command):
    words, environment = words_of(command)
    if words[0] == "bash":
        script = ROOT / words[1]
        assert script.is_file()
        text = script.read_text(encoding="utf-8")
        for name in environment:
            assert name in text, f"{words[1]} knows no {name}"
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        module = re.search(r"-m ([\w.]+)", text)
        assert not options or options <= options_of([module[1]])
    elif words[0] == "python":
        assert words[1] == "-m"
        assert importlib.util.find_spec(words[2]) is not None
        assert {word for word in words[3:] if word.startswith("--")} <= options_of([words[2]])
    elif words[0] == "deepeyes":
        options = {word for word in words if word.startswith("--")}
        path = ["deepeyes.cli", words[1]]
        if words[1] == "sandbox":
            path.append(words[2])
        assert options <= options_of(path) | {"--help"}
    else:
        assert words[0] in OF_OTHERS, command
    for word in words:
        if re.fullmatch(r"qwen2_5_vl_\w+|tiny_cpu", word):
            assert (RECIPES / f"{word}.yaml").is_file() or (ROOT / f"cold_start/recipes/{word}.yaml").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_every_plan_of_the_pages_can_be_made(page, capsys):
    for owner, command in COMMANDS:
        words, _ = words_of(command)
        if owner == page and words[:2] == ["deepeyes", "plan"]:
            with pytest.raises(SystemExit) as exit_:
                main(words[1:])
            assert exit_.value.code == 0, command
            assert "a checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_every_key_that_a_page_tells_to_set_is_known(page):
    from reinforcement_learning.recipe import load_recipe

    for override in re.findall(r"`(agent\.[a-z_.]+=[\w.]+)`", TEXTS[page]):
        load_recipe("qwen2_5_vl_7b", [override])
    for overlay in re.findall(r"OVERLAY=(_[a-z_]+)", TEXTS[page]):
        assert (RECIPES / f"{overlay}.yaml").is_file()


def test_the_numbers_of_the_runbook_are_those_of_the_plan():
    from reinforcement_learning.plan import make_plan
    from reinforcement_learning.recipe import load_recipe

    text = TEXTS["docs/runbook.md"]
    four, one = make_plan(load_recipe("qwen2_5_vl_7b")), make_plan(load_recipe("qwen2_5_vl_7b_1x8"))
    assert f"| {four.disk.total / 1e12:.1f} TB | {one.disk.total / 1e12:.1f} TB |" in text
    assert f"| {four.sessions // 4:,} | {one.sessions:,} |" in text
    assert f"--max-sessions {four.sessions // 4}" in text
