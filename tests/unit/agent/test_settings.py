"""Settings of an episode: each stands once, under one name, with one default; old names give the new."""

import argparse
import ast
import re

import pytest
import yaml
from pydantic import ValidationError

from agent.messages import Message
from agent.options import add_agent_options, given_settings, settings_of
from agent.prompts import load_prompt, prompt_names
from agent.recipes import RecipeError, shared_value
from agent.settings import OLD_NAMES, AgentSettings, with_sources
from agent.setup import opening, primer_of, prompt_of
from deepeyes.chat.command import main as chat
from evaluation.run import parse as evaluate
from reinforcement_learning.recipe import RECIPES, load_recipe
from tests.conftest import ROOT
from tests.other_settings import OTHER_VALUES

NAMES = tuple(AgentSettings.model_fields)
AMBIGUOUS = {"prompt", "primer", "search", "tools", "max_calls", "max_in_flight", "image_search"}
"""Names that other things have too: a judge's prompt, a budget of a search provider. The judge is a model of its own, with
settings of its own, and so is the cold start."""
ROOMS = ("agent", "code_sandbox", "reinforcement_learning", "evaluation", "data", "serving", "viewer", "deepeyes")


def declared(path):
    """(name, line) of each default that a file gives to something named like a setting: a field, an argument, an option."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            plain = [*arguments.posonlyargs, *arguments.args]
            pairs = [*zip(plain[len(plain) - len(arguments.defaults) :], arguments.defaults, strict=True)]
            pairs += [pair for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if pair[1] is not None]
            for argument, default in pairs:
                yield argument.arg, default
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args:
            for keyword in node.keywords:
                if keyword.arg == "default" and isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value).lstrip("-").replace("-", "_"), keyword.value


def test_no_other_class_function_or_option_declares_a_setting():
    found = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path != ROOT / "agent/settings.py":
                for name, value in declared(path):
                    says_nothing = isinstance(value, ast.Constant) and value.value is None
                    if name in set(NAMES) | set(OLD_NAMES) - {"max_pixels", "max_tokens", "deadline_s"} and not says_nothing:
                        found += [f"{path.relative_to(ROOT)}: {name}"] if name not in AMBIGUOUS else []
    assert found == []


def test_the_test_of_declarations_sees_them(tmp_path):
    (tmp_path / "x.py").write_text(
        "class A:\n    max_turns: int = 9\n\ndef f(page_chars=1, *, max_hits=5, any_image): ...\n"
        "parser.add_argument('--python-timeout-s', default=3)\n"
    )
    assert {name for name, _ in declared(tmp_path / "x.py")} == {"max_turns", "page_chars", "max_hits", "python_timeout_s"}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_names_no_setting_that_it_leaves_at_its_default(path):
    text = re.sub(r"\$\{[^}]*\}", "x", path.read_text())
    agent = (yaml.safe_load(text) or {}).get("agent") or {}
    defaults = AgentSettings().model_dump(mode="json")
    # What an overlay or a recipe that extends another takes back is no repetition.
    repeated = [name for name, value in agent.items() if name in defaults and value == defaults[name] and value is not None]
    assert repeated == []


def test_every_setting_has_a_source_or_a_sentence():
    assert all((field.description or "").strip().endswith((".", "`.")) for field in AgentSettings.model_fields.values())


def test_the_image_limit_is_the_shared_one():
    assert AgentSettings().image_max_pixels == shared_value("image_max_pixels") == load_recipe("qwen2_5_vl_7b").agent.image_max_pixels


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_agent_options(parser)
    return parser.parse_args(arguments)


def as_text(value):
    if isinstance(value, tuple):
        return ",".join(value)
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...") if isinstance(value, dict) else str(value)


def test_the_table_of_other_values_knows_every_setting():
    assert set(OTHER_VALUES) == set(NAMES)
    defaults = AgentSettings()
    assert all(getattr(defaults, name) != value for name, value in OTHER_VALUES.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_an_option_of_its_name_and_an_entry_of_a_file(name, tmp_path):
    option, value = "--" + name.replace("_", "-"), OTHER_VALUES[name]
    given = [option] if value is True else [option, as_text(value)]
    assert settings_of(AgentSettings, given_settings(options(*given))) == AgentSettings(**{name: value})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({name: list(value) if isinstance(value, tuple) else value}))
    from_file = given_settings(options("--settings", str(tmp_path / "mine.yaml")))
    assert settings_of(AgentSettings, from_file) == AgentSettings(**{name: value})
    assert given_settings(options()) == {}


@pytest.mark.parametrize("command", [chat, evaluate], ids=["chat", "evaluation"])
def test_chat_and_evaluation_have_every_setting_as_an_option(command, capsys):
    with pytest.raises(SystemExit):
        command(["--help"])
    known = set(re.findall(r"(?<=[ \[])--[a-z-]+", capsys.readouterr().out))
    assert {"--" + name.replace("_", "-") for name in NAMES} <= known


def test_options_go_above_the_environment_and_that_above_files(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("sandbox_urls: [http://file:1]\nmax_turns: 4\nmax_hits: 2")
    (tmp_path / "b.yaml").write_text("max_turns: 5")
    files = ("--settings", str(tmp_path / "a.yaml"), "--settings", str(tmp_path / "b.yaml"))
    assert given_settings(options(*files)) == {"sandbox_urls": ["http://file:1"], "max_turns": 5, "max_hits": 2}
    monkeypatch.setenv("CODE_SANDBOX_URL", "http://env:1, http://env:2")
    assert given_settings(options(*files))["sandbox_urls"] == ["http://env:1", "http://env:2"]
    assert given_settings(options(*files, "--sandbox-urls", "http://o:1", "--max-hits", "none")) == {
        "sandbox_urls": ["http://o:1"], "max_turns": 5, "max_hits": None,
    }  # fmt: skip


# ---- bad input ----


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_is_an_error_that_gives_the_new_one_wherever_it_is_written(old, new, tmp_path, capsys):
    with pytest.raises(ValidationError, match=f"{old} is called {new} now"):
        AgentSettings.model_validate({old: 1})
    with pytest.raises(RecipeError, match=f"agent: {old} is called {new} now"):
        load_recipe("tiny_cpu", [f"agent.{old}=1"])
    (tmp_path / "mine.yaml").write_text(f"{old}: 1")
    with pytest.raises(RecipeError, match=rf"mine\.yaml: {old} is called {new} now"):
        given_settings(options("--settings", str(tmp_path / "mine.yaml")))
    with pytest.raises(SystemExit):
        options("--" + old.replace("_", "-"), "1")
    assert f"it is called --{new.replace('_', '-')} now" in capsys.readouterr().err


def test_an_unknown_name_lists_the_right_ones(tmp_path, capsys):
    with pytest.raises(RecipeError, match="agent.max_turn: .*; there are: any_image, .*max_turns"):
        load_recipe("tiny_cpu", ["agent.max_turn=1"])
    (tmp_path / "mine.yaml").write_text("max_turn: 1")
    with pytest.raises(RecipeError, match=r"mine\.yaml: max_turn: .*; there are: any_image, .*max_turns"):
        given_settings(options("--settings", str(tmp_path / "mine.yaml")))
    with pytest.raises(SystemExit):
        options("--nonsense", "1")
    assert "--max-turns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--max-turns", "0"), "max_turns: Input should be greater than or equal to 1"),
        (("--image-max-pixels", "5"), "image_max_pixels: Input should be greater"),
        (("--python-timeout-s", "soon"), "python_timeout_s: Input should be a valid number"),
        (("--max-observation-images", "65"), "max_observation_images: Input should be less"),
        (("--max-calls", "{search: 0}"), "max_calls.search: Input should be greater"),
        (("--sandbox-urls", ","), "sandbox_urls: Tuple should have at least 1 item"),
    ],
)
def test_a_value_that_cannot_be_is_named_in_one_line(given, said):
    with pytest.raises(RecipeError) as error:
        settings_of(AgentSettings, given_settings(options(*given)))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--max-in-flight", "32"), "no count by name, such as '{policy: 32}' (episodes at once are --max-episodes)"),
        (("--max-calls", "2"), "no count by name"),
        (("--search", "sources.yaml"), "a file of settings is given as --settings sources.yaml"),
        (("--search", "{provider: local"), "is no YAML value"),
        (("--search-index", "p.jsonl"), "give --search '{provider: …, path: p.jsonl}'"),
    ],
)
def test_an_option_that_cannot_be_read_says_what_to_write(given, said, capsys):
    with pytest.raises(SystemExit):
        options(*given)
    assert said in capsys.readouterr().err


# ---- prompt and primer ----


def test_the_primer_is_the_settings_then_the_prompts_then_the_published_one():
    assert primer_of(AgentSettings()) == primer_of(AgentSettings(prompt=None)) == "<think>"
    assert primer_of(AgentSettings(primer="")) == primer_of(AgentSettings(prompt="tiles")) == ""
    assert primer_of(AgentSettings(tools=("python",))) == "<think>", "of the prompt without search"
    assert primer_of(AgentSettings(), can_prime=False) == ""
    assert primer_of(AgentSettings(primer="x"), can_prime=False) == "x", "which the policy then refuses"


@pytest.mark.parametrize("name", prompt_names())
def test_a_prompt_that_asks_for_thinking_and_gives_tools_begins_it_after_observations(name):
    prompt = load_prompt(name)
    agentic = "<code>" in prompt.system
    assert prompt.primer == ("<think>" if agentic else "")


def test_a_source_that_is_off_or_not_there_takes_its_tools_away():
    block = {"provider": "local", "mode": "off"}
    assert AgentSettings(search=block, tools=("python", "search", "fetch_page", "image_search")).tools_on == (
        "python", "image_search",
    )  # fmt: skip
    assert AgentSettings(search=block | {"mode": False}).tools_on == ("python", "image_search"), "YAML's bare off"
    assert with_sources(("python", "search", "fetch_page", "image_search"), {"image_search": block}) == ("python", "image_search")


def test_a_question_without_a_system_message_is_asked_with_the_prompt_and_one_with_it_is_left_alone():
    settings = AgentSettings(tools=("python",))
    bare, own = (Message("user", "q"),), (Message("system", "mine"), Message("user", "q"))
    assert [message.role for message in opening(bare, prompt_of(settings))] == ["system", "user"]
    assert opening(own, prompt_of(settings)) == own
    assert opening(bare, prompt_of(settings.model_copy(update={"prompt": None}))) == bare
