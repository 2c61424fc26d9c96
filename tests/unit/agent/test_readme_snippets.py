"""What agent/README.md shows is executed as it stands there."""

import re

import httpx
import pytest

import agent.search.providers
import agent.tools
from agent.errors import ToolError
from agent.prompts import load_prompt
from agent.search import WebResult
from agent.search.gateway import open_search
from agent.tools import ToolContext, build_tools
from tests.conftest import ROOT

SNIPPETS = dict(
    re.findall(
        r"<!-- file: (\S+) -->\n```\w+\n(.*?)\n```", (ROOT / "agent/README.md").read_text(encoding="utf-8"), re.DOTALL
    )
)


@pytest.fixture
def written(tmp_path, monkeypatch):
    for name, text in SNIPPETS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(agent.tools, "__path__", [*agent.tools.__path__, str(tmp_path / "tools")])
    monkeypatch.setattr(
        agent.search.providers, "__path__", [*agent.search.providers.__path__, str(tmp_path / "search/providers")]
    )
    return tmp_path


def test_there_is_one_snippet_of_each_kind():
    assert set(SNIPPETS) == {"tools/count_words.py", "search/providers/wiki.py", "prompts/terse.yaml"}


async def test_the_tool_of_the_readme_works(written):
    tool = build_tools(["count_words"], ToolContext())["count_words"]
    assert "3 words" in (await tool.run({"text": "a b c"})).observation.text
    with pytest.raises(ToolError):
        await tool.run({})
    await tool.close()


async def test_the_provider_of_the_readme_works_with_everything_around_it(written):
    found = {"query": {"search": [{"title": "Red panda", "snippet": "a <span>mammal</span>", "timestamp": "2024"}]}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=found))
    block = {"provider": "wiki", "base_url": "http://w", "mode": "record", "recording": written / "r.sqlite", "max_calls": 1}
    search = open_search(block, transport=transport)
    wanted = [WebResult(title="Red panda", link="Red panda", snippet="a mammal", date="2024")]
    assert await search.search("panda", max_hits=3) == wanted
    assert await search.search("panda", max_hits=3) == wanted
    await search.aclose()


def test_the_prompt_of_the_readme_is_filled(written):
    prompt = load_prompt("terse", tools=("python", "search", "count_words"), directory=written / "prompts")
    assert "stopped after\n200 seconds" in prompt.system
    assert "- count_words: counts words." in prompt.system
