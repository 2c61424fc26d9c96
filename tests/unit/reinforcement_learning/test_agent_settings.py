"""The `agent:` block of an RL recipe, down to what a rollout is made of."""

import json

import pytest
from pydantic import ValidationError

from agent.images import ImageFile
from agent.messages import Message
from reinforcement_learning.settings import RolloutSettings
from reinforcement_learning.verl_adapter.services import services
from tests.conftest import png
from tests.pictures import QWEN2_VL_RULE


def built(tmp_path, **block):
    (tmp_path / "settings.json").write_text(RolloutSettings(**block).model_dump_json())
    return services(str(tmp_path / "settings.json"), QWEN2_VL_RULE)


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "pages.jsonl").write_text(json.dumps({"title": "T", "text": "x", "link": "l"}))
    return {"provider": "local", "path": str(tmp_path / "pages.jsonl")}


def test_limits_of_the_recipe_reach_the_loop_the_tools_and_the_prompt(tmp_path, pages):
    numbers = {
        "max_turns": 4,
        "max_calls": {"search": 2},
        "max_episode_tokens": 99,
        "episode_deadline_s": 7.5,
        "max_hits": 3,
    }
    made = built(tmp_path, tools=("search", "fetch_page"), search=pages, prompt="deepeyesv2", page_chars=123, **numbers)
    assert numbers.items() <= made.settings.model_dump().items()
    assert made.settings is made.setup.settings
    assert set(made.setup.tools((), "q")) == {"search", "fetch_page"}
    system = made.setup.opening(Message("user", "what?"))[0]
    assert "Returns up to 3 pages" in system.text
    assert "123 characters" in system.text


def test_a_row_that_brings_its_own_prompt_keeps_it(tmp_path):
    row = (Message("system", "mine"), Message("user", "<image>what?", (ImageFile(png(56, 56)),)))
    made = built(tmp_path, tools=(), prompt="think")
    assert made.setup.opening(*row) == (row[0], row[1])
    bare = made.setup.opening(row[1])
    assert bare[0].text == "You are a helpful assistant."
    assert bare[1].text.startswith("<image>what?\n\nReason step by step")


def test_without_a_prompt_rows_stay_as_they_are(tmp_path):
    row = (Message("user", "what?"),)
    assert built(tmp_path, tools=(), prompt=None).setup.opening(*row) == row


def test_a_source_that_is_off_takes_its_tools_and_its_promises_away(tmp_path, pages):
    made = built(tmp_path, tools=("search", "fetch_page"), search=pages | {"mode": "off"}, prompt="deepeyesv2")
    assert made.setup.search is None
    assert made.setup.tools((), "q") == {}
    assert "search" not in made.setup.opening(Message("user", "what?"))[0].text


def test_an_unknown_name_is_refused():
    with pytest.raises(ValidationError, match="max_turn"):
        RolloutSettings(max_turn=3)


def test_a_judges_key_in_a_recipe_is_refused_with_where_it_belongs():
    with pytest.raises(ValidationError, match="a key does not stand in a recipe; set JUDGE_API_KEY"):
        RolloutSettings(judge={"api_key": "secret"})
