import hashlib
import json
from pathlib import Path

import pytest
import yaml

from agent.prompts import load_prompt, prompt_names
from agent.settings import AgentSettings

KNOWN = json.loads((Path(__file__).parent / "golden/prompt_versions.json").read_text())


@pytest.mark.parametrize("name", prompt_names())
def test_the_wording_of_a_prompt_changes_only_with_its_version(name):
    file = yaml.safe_load((Path(__file__).parents[3] / f"agent/prompts/{name}.yaml").read_text(encoding="utf-8"))
    found = hashlib.sha256((file["system"] + "\0" + file.get("reminder", "")).encode()).hexdigest()[:16]
    assert KNOWN.get(f"{name}@{file['version']}") == found, (
        f"{name} differs from its version {file['version']}: raise the version, and add "
        f'"{name}@{file["version"]}": "{found}" to golden/prompt_versions.json'
    )


@pytest.mark.parametrize("name", prompt_names())
def test_every_prompt_loads_and_its_hash_follows_its_numbers(name):
    prompt = load_prompt(name)
    assert prompt.system
    assert "$" not in prompt.system + prompt.reminder
    changed = load_prompt(name, settings=AgentSettings(python_timeout_s=7, max_hits=3))
    assert ("7 seconds" in changed.system) == ("200 seconds" in prompt.system)
    assert (changed.sha256 == prompt.sha256) == (changed.system == prompt.system)


def test_a_prompt_promises_what_the_tools_keep():
    settings = AgentSettings(python_timeout_s=12.5, max_hits=3, page_chars=777, max_calls={"image_search": 2})
    system = load_prompt("deepeyesv2", tools=("python", "search", "image_search", "fetch_page"), settings=settings).system
    assert "after 12.5 seconds" in system
    assert "- search: text search of the web. `query` is one string. Returns up to 3 pages." in system
    assert "can be used 2 times" in system
    assert "777 characters" in system
    assert "- fetch_page" not in load_prompt("deepeyesv2").system
    assert "file that your code saved" not in load_prompt("deepeyesv2").system
    assert "file that your code saved" in load_prompt("deepeyesv2", settings=AgentSettings(any_image=True)).system


def test_without_search_tools_the_prompt_without_search_is_used():
    assert load_prompt("deepeyesv2", tools=("python",)) == load_prompt("deepeyesv2_code", tools=("python",))


def test_an_unknown_prompt_lists_those_that_are():
    with pytest.raises(LookupError, match="deepeyesv2, deepeyesv2_code"):
        load_prompt("v9")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version: 1\n", "system"),
        ("version: 1\nsystem: $nothing\n", "placeholder without a value"),
        ("version: 1\nsystem: [\n", "cannot be read"),
        ("version: 1\nsystem: s\nextra: 1\n", "extra"),
    ],
)
def test_a_broken_prompt_file_is_named(tmp_path, text, problem):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match="mine.yaml") as error:
        load_prompt("mine", directory=tmp_path)
    assert problem in str(error.value)


def test_a_prompt_that_lists_tools_needs_some(tmp_path):
    (tmp_path / "mine.yaml").write_text("version: 1\nsystem: use $tools\n")
    assert load_prompt("mine", directory=tmp_path).system.startswith("use - search: ")
    with pytest.raises(ValueError, match="choose another prompt"):
        load_prompt("mine", tools=("python",), directory=tmp_path)
