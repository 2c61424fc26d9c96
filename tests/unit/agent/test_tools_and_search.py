import json

import pytest

from agent.errors import ToolError
from agent.images import ImageFile
from agent.loading import load_plugin, plugin_names
from agent.prompts import load_prompt, prompt_names
from agent.search import ImageHit, local, mmsearch_r1
from agent.testing import FakeSearch
from agent.tools import ToolContext, build_tools
from code_sandbox.testing import FakeSandbox
from tests.conftest import png

PAGES = [
    {"title": "Red panda", "text": "A small mammal of the Himalaya.", "link": "p:1"},
    {"title": "Panda", "text": "A bear that eats bamboo in China.", "link": "p:2"},
    {"title": "Eiffel Tower", "text": "A tower in Paris.", "link": "p:3"},
]


@pytest.fixture
def pages(tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(page) + "\n" for page in PAGES))
    return path


@pytest.fixture
def context():
    return ToolContext(
        images=(ImageFile(png()),), item_id="fvqa_train_0", sandbox=FakeSandbox(), search=FakeSearch(),
        image_search=FakeSearch(hits=[ImageHit("t", ImageFile(png())), ImageHit("broken", ImageFile(b"x"))]),
    )  # fmt: skip


async def test_every_tool_on_disk_builds_and_closes(context):
    tools = build_tools(plugin_names("agent.tools"), context)
    assert set(tools) == {"python", "search", "image_search"}
    for tool in tools.values():
        await tool.close()


@pytest.mark.parametrize("name", ["python", "search", "image_search"])
def test_a_tool_without_what_it_needs_says_so(name):
    with pytest.raises(ValueError, match="needs"):
        build_tools([name], ToolContext())


def test_an_unknown_plugin_lists_those_that_are():
    with pytest.raises(LookupError, match="image_search, python, search"):
        load_plugin("agent.tools", "fly")


@pytest.mark.parametrize("query", [None, 3, "", "  ", ["a"], "x" * 501])
async def test_a_bad_query_is_the_models_mistake(context, query):
    with pytest.raises(ToolError):
        await build_tools(["search"], context)["search"].run({"query": query} if query is not None else {})


async def test_image_search_works_once_without_arguments_and_skips_unreadable_thumbnails(context):
    tool = build_tools(["image_search"], context)["image_search"]
    with pytest.raises(ToolError, match="no arguments"):
        await tool.run({"image": 1})
    result = await tool.run({})
    assert len(result.observation.images) == 1
    with pytest.raises(ToolError, match="only once"):
        await tool.run({})


async def test_image_search_of_a_question_without_image_is_told_to_the_model():
    tool = build_tools(["image_search"], ToolContext(image_search=FakeSearch()))["image_search"]
    with pytest.raises(ToolError, match="has none"):
        await tool.run({})


@pytest.mark.parametrize("built", [False, True])
async def test_a_local_index_finds_the_best_page_first(pages, tmp_path, built):
    path = pages
    if built:
        path = tmp_path / "index.sqlite"
        assert local.build_index(pages, path) == 3
    provider = local.Provider(local.Settings(path=path))
    hits = await provider.search("where do red pandas live?", max_hits=2)
    assert [hit.link for hit in hits] == ["p:1", "p:2"]
    assert await provider.search('") OR DROP TABLE -- * NEAR(', max_hits=2) == []
    assert await provider.search("...", max_hits=2) == []


def test_a_broken_page_is_named_by_its_line(tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps(PAGES[0]) + "\n{oops\n")
    with pytest.raises(ValueError, match="pages.jsonl:2"):
        local.Provider(local.Settings(path=path))
    with pytest.raises(FileNotFoundError, match="no search index"):
        local.Provider(local.Settings(path=tmp_path / "none.jsonl"))


async def test_the_published_cache_keeps_titles_aligned_and_leaves_out_lost_images(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    cache = {
        "fvqa_train_0": {
            "tool_returned_web_title": ["one", "two", "three"],
            "cached_images_path": [None, "a.png", "lost.png"],
        },
        "bad": None,
    }
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(cache))
    provider = mmsearch_r1.Provider(mmsearch_r1.Settings(path=path))
    hits = await provider.search_image(ImageFile(png()), item_id="fvqa_train_0", max_hits=5)
    assert [hit.title for hit in hits] == ["two"]
    for unknown in ("bad", "other"):
        assert await provider.search_image(ImageFile(png()), item_id=unknown, max_hits=5) == []
    path.write_text("[]")
    with pytest.raises(ValueError, match="object keyed by question id"):
        mmsearch_r1.Provider(mmsearch_r1.Settings(path=path))


@pytest.mark.parametrize("name", prompt_names())
def test_every_prompt_loads_and_its_hash_follows_its_numbers(name):
    prompt = load_prompt(name)
    assert prompt.system
    assert "$" not in prompt.system + prompt.reminder
    changed = load_prompt(name, python_timeout_s=7, max_hits=3)
    assert ("7 seconds" in changed.system) == ("200 seconds" in prompt.system)
    assert (changed.sha256 == prompt.sha256) == (changed.system == prompt.system)


def test_an_unknown_prompt_lists_those_that_are():
    with pytest.raises(LookupError, match="deepeyesv2, deepeyesv2_code"):
        load_prompt("v9")
