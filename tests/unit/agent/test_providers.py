"""The contract of a search provider, held by every file in agent/search/providers.

HTTP providers are asked against answers in `recorded/`, which have the form of each API's documentation; a new provider needs a line in
`SETTINGS` and, if it has a server, a file there.
"""

import json
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from agent.errors import ToolError, ToolUnavailable
from agent.images import ImageFile
from agent.loading import load_plugin, plugin_names
from agent.search import WebResult
from agent.search.gateway import open_search
from agent.search.limits import PROVIDERS, limit_of
from agent.search.providers import duckduckgo, local_images
from agent.search.web import WebClient, WebSettings
from agent.settings import AgentSettings
from agent.tools import ToolContext, build_tools, describe_tools
from tests.conftest import png

RECORDED = Path(__file__).parent / "recorded"
NAMES = plugin_names(PROVIDERS)
KEYS = {"serper": "SERPER_API_KEY", "tavily": "TAVILY_API_KEY", "brave": "BRAVE_API_KEY"}
HTTP = [*KEYS, "searxng", "search_r1"]
KEY = "secret-key-of-a-test"
FOUND = [
    WebResult(
        title="Red panda - Wikipedia",
        link="https://en.wikipedia.org/wiki/Red_panda",
        snippet="The red panda inhabits temperate forests & bamboo.",
    ),
    WebResult(
        title="Red Panda Network", link="https://redpandanetwork.org/", snippet="Where they live.", date="Mar 3, 2024"
    ),
]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A block for each provider on disk."""
    (tmp_path / "pages.jsonl").write_text(
        "".join(json.dumps({"title": page.title, "text": page.snippet, "link": page.link}) + "\n" for page in FOUND)
    )
    (tmp_path / "images").mkdir()
    picture().save(tmp_path / "images/red_panda.png")
    (tmp_path / "images/titles.jsonl").write_text(json.dumps({"file": "red_panda.png", "title": "Red panda"}))
    cache = {"q1": {"tool_returned_web_title": ["Red panda"], "cached_images_path": ["images/red_panda.png"]}}
    (tmp_path / "cache.json").write_text(json.dumps(cache))
    for variable in KEYS.values():
        monkeypatch.setenv(variable, KEY)
    return {
        "serper": {}, "tavily": {}, "brave": {}, "searxng": {"base_url": "http://searx.test"}, "search_r1": {"base_url": "http://r1.test/retrieve"}, "duckduckgo": {},
        "local": {"path": tmp_path / "pages.jsonl"}, "local_images": {"path": tmp_path / "images"},
        "mmsearch_r1": {"path": tmp_path / "cache.json"},
    }  # fmt: skip


def picture(size=(64, 48)) -> Image.Image:
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    image.paste((255, 0, 0), (size[0] // 8, size[1] // 8, size[0] // 2, size[1] // 2))
    return image


class Server:
    """Answers like the provider's API; or as it is told."""

    def __init__(self, name, *answers):
        self.name = name
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return httpx.Response(200, content=(RECORDED / f"{self.name}.json").read_bytes())


def open_provider(name, settings, *answers, **options):
    server = Server(name, *answers)
    fast = {"attempts": 3, "deadline_s": 20.0}
    search = open_search({"provider": name, **settings[name], **fast, **options}, transport=httpx.MockTransport(server))
    assert search is not None
    if name == "duckduckgo":
        asked = json.loads((RECORDED / "duckduckgo.json").read_text())
        search._provider = duckduckgo.Provider(duckduckgo.Settings(), search._web, ask=lambda query, **options: asked)
    return search, server


def test_every_provider_on_disk_is_tested(settings):
    assert set(settings) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_has_at_least_one_ability_and_no_secret_in_its_options(name, settings):
    search, _ = open_provider(name, settings)
    assert any(search.can(ability) for ability in ("search", "search_image", "open_page"))
    options = load_plugin(PROVIDERS, name).Settings(**settings[name]).model_dump(mode="json")
    assert not {"api_key", "base_url", "path", "proxy"} & set(options), (
        "a recording's key must not depend on keys and addresses"
    )


@pytest.mark.parametrize("name", [*HTTP, "duckduckgo", "local"])
async def test_text_search_gives_plain_results_best_first_and_no_more_than_asked(name, settings):
    search, _ = open_provider(name, settings)
    found = await search.search("red panda habitat", max_hits=5)
    wanted = FOUND if name in HTTP else [WebResult(title=page.title, link=page.link, snippet=page.snippet) for page in FOUND]
    assert found == wanted
    assert await search.search("red panda habitat", max_hits=1) == wanted[:1]
    await search.aclose()


@pytest.mark.parametrize("name", ["local_images", "mmsearch_r1"])
async def test_image_search_finds_the_picture_at_another_size(name, settings):
    search, _ = open_provider(name, settings)
    asked = ImageFile.from_pil(picture((200, 150)))
    (hit,) = await search.search_image(asked, item_id="q1", max_hits=5)
    assert hit.title == "Red panda"
    assert hit.thumbnail == ImageFile.from_pil(picture()) or hit.thumbnail.size == (64, 48)
    other = ImageFile.from_pil(Image.linear_gradient("L").convert("RGB"))
    assert await search.search_image(other, item_id="unknown", max_hits=5) == []


@pytest.mark.parametrize("name", HTTP)
async def test_a_request_carries_query_and_key_where_the_api_wants_them(name, settings):
    search, server = open_provider(name, settings)
    await search.search("Köln? & co", max_hits=3)
    (request,) = server.requests
    body = json.loads(request.content or b"{}")
    assert "Köln? & co" in (request.url.params.get("q"), body.get("q"), body.get("query"), *body.get("queries", ()))
    if name in KEYS:
        assert KEY in " ".join(request.headers.values())
        assert KEY not in str(request.url)


@pytest.mark.parametrize("name", HTTP)
async def test_an_empty_answer_is_an_empty_list_and_a_changed_api_an_outage(name, settings):
    empty = {"brave": {"type": "search"}, "search_r1": {"result": [[]]}}.get(name, {"organic": [], "results": []})
    search, _ = open_provider(name, settings, httpx.Response(200, json=empty))
    assert await search.search("nothing", max_hits=5) == []
    for changed in (
        {"organic": "x", "results": "x", "web": []},
        {"organic": [3], "results": [3], "web": {"results": [3]}, "result": [[3]]},
        [],
    ):
        search, _ = open_provider(name, settings, httpx.Response(200, json=changed))
        with pytest.raises(ToolUnavailable, match=f"{name}: expected"):
            await search.search("nothing", max_hits=5)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(("status", "advice"), [(401, "key is missing or wrong"), (402, "no credit"), (400, "settings")])
async def test_a_refusal_is_not_repeated_and_says_what_to_do(name, settings, status, advice):
    search, server = open_provider(name, settings, httpx.Response(status, text=f"bad key {KEY}"))
    with pytest.raises(ToolUnavailable, match=advice) as error:
        await search.search("q", max_hits=5)
    assert str(status) in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_key_is_named_before_anything_is_asked(name, settings, monkeypatch):
    monkeypatch.delenv(KEYS[name])
    with pytest.raises(ValueError, match=KEYS[name]):
        open_provider(name, settings)


def test_an_unknown_provider_or_setting_lists_those_that_are(settings):
    with pytest.raises(LookupError, match="brave, duckduckgo, local, local_images"):
        open_search({"provider": "bing"})
    with pytest.raises(ValueError, match=r"no setting pth; there are: .*max_calls.*path"):
        open_search({"provider": "local", "pth": "x"})
    with pytest.raises(ValueError, match="needs `provider:`"):
        open_search({"path": "x"})


async def test_no_results_of_the_ddgs_library_are_an_empty_list_and_its_errors_an_outage(settings):
    def ask(query, **options):
        raise RuntimeError(query)

    web = WebClient("duckduckgo", WebSettings(attempts=2, deadline_s=5))
    provider = duckduckgo.Provider(duckduckgo.Settings(), web, ask=ask)
    assert await provider.search("No results found.", max_hits=3) == []
    with pytest.raises(ToolUnavailable, match="RuntimeError: 202 Ratelimit"):
        await provider.search("202 Ratelimit", max_hits=3)


def test_the_ddgs_library_is_there_and_has_what_we_call():
    assert callable(duckduckgo._library(duckduckgo.Settings(), 5.0))


async def test_images_are_found_by_embedding_where_a_model_is_given(tmp_path, settings):
    """A model that averages each channel: what is red is near what is red, whatever its shape."""
    node = helper.make_node("GlobalAveragePool", ["pixels"], ["mean"])
    flat = helper.make_node("Flatten", ["mean"], ["embedding"])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 32, 32])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([node, flat], "mean", [pixels], [embedding])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "mean.onnx")
    folder = tmp_path / "colours"
    folder.mkdir()
    for name, colour in (("red", (220, 20, 20)), ("green", (20, 220, 20)), ("blue", (20, 20, 220))):
        (folder / f"{name}.png").write_bytes(png(50, 30, colour))
    (folder / "broken.png").write_bytes(b"x")
    given = local_images.Settings(path=folder, embedding_model=tmp_path / "mean.onnx", mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    for _ in range(2):  # the second time from the file beside the images
        provider = local_images.Provider(given)
        hits = await provider.search_image(ImageFile(png(9, 9, (250, 60, 50))), item_id="", max_hits=1)
        assert [hit.title for hit in hits] == ["red"]
    assert (folder / ".deepeyes-images.json").exists()
    with pytest.raises(FileNotFoundError, match="no ONNX model"):
        local_images.Provider(local_images.Settings(path=folder, embedding_model=tmp_path / "none.onnx"))


async def test_the_published_cache_keeps_titles_aligned_and_leaves_out_lost_images(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    titles, paths = ["one", "two", "three"], [None, "a.png", "lost.png"]
    cache = {"fvqa_train_0": {"tool_returned_web_title": titles, "cached_images_path": paths}, "bad": None}
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(cache))
    search = open_search({"provider": "mmsearch_r1", "path": path})
    hits = await search.search_image(ImageFile(png()), item_id="fvqa_train_0", max_hits=5)
    assert [hit.title for hit in hits] == ["two"]
    cache["damaged"] = {"tool_returned_web_title": ["x"], "cached_images_path": [3]}
    path.write_text(json.dumps(cache))
    with pytest.raises(ToolUnavailable, match="damaged at 'damaged'"):
        await open_search({"provider": "mmsearch_r1", "path": path}).search_image(
            ImageFile(png()), item_id="damaged", max_hits=5
        )
    for unknown in ("bad", "other"):
        assert await search.search_image(ImageFile(png()), item_id=unknown, max_hits=5) == []
    path.write_text("[]")
    with pytest.raises(ValueError, match="object keyed by question id"):
        open_search({"provider": "mmsearch_r1", "path": path})
    with pytest.raises(FileNotFoundError, match="no image-search cache"):
        open_search({"provider": "mmsearch_r1", "path": tmp_path / "none.json"})


async def test_no_result_of_engines_that_did_not_answer_is_an_outage_and_is_not_recorded():
    silent = {"results": [], "unresponsive_engines": [["google", "CAPTCHA"], ["brave", "too many requests"]]}
    for answer, found in ((silent, None), ({"results": [], "unresponsive_engines": []}, []), ({"results": []}, [])):
        transport = httpx.MockTransport(lambda _, answer=answer: httpx.Response(200, json=answer))
        web = WebClient("searxng", WebSettings(attempts=2), transport=transport)
        provider = load_plugin(PROVIDERS, "searxng")
        asked = provider.Provider(provider.Settings(base_url="http://searx.test"), web).search("x", max_hits=3)
        if found is None:
            with pytest.raises(ToolUnavailable, match="no engine answered .google: CAPTCHA, brave: too many requests."):
                await asked
        else:
            assert await asked == found
        await web.aclose()


@pytest.mark.parametrize(
    "passage",
    [
        {"document": {"id": "7", "contents": '"Ertholm"\nErtholm has a lighthouse.'}, "score": 12.5},
        {"id": "7", "contents": '"Ertholm"\nErtholm has a lighthouse.'},
        {"document": {"title": "Ertholm", "text": "Ertholm has a lighthouse."}, "score": 0.1, "reranker_score": 2.0},
        '"Ertholm"\nErtholm has a lighthouse.',
    ],
)
async def test_every_form_of_a_retrieval_servers_passage_is_read(passage):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"result": [[passage] * 3]}))
    search = open_search({"provider": "search_r1", "base_url": "http://r1.test:8000/"}, transport=transport)
    assert await search.search("Ertholm", max_hits=2) == [WebResult(title="Ertholm", snippet="Ertholm has a lighthouse.")] * 2
    await search.aclose()


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(
    "told",
    [
        {"error": "Too Many Requests"},
        {"message": "Not enough credits", "statusCode": 400},
        {"detail": {"error": "blocked because of excessive requests"}},
        {"type": "ErrorResponse", "error": {"code": "RATE_LIMITED"}},
        {"organic": [], "results": [], "error": "upstream failed"},
    ],
)
async def test_an_error_with_status_200_is_no_search_without_results(name, told, settings):
    search, _ = open_provider(name, settings, httpx.Response(200, json=told), attempts=1)
    with pytest.raises(ToolUnavailable, match="the answer is an error"):
        await search.search("nothing", max_hits=5)


@pytest.mark.parametrize(
    ("status", "page", "outage"),
    [
        (202, "", True),
        (403, "", True),
        (429, "", True),
        (200, "<html><div class='anomaly-modal__title'>Unfortunately, bots use DuckDuckGo too. No results</div></html>", True),
        (200, "<html><body>Please wait</body></html>", True),
        (200, "<html><div class='no-results'>No results found for <b>xqzv</b>.</div></html>", False),
    ],
)
async def test_a_page_for_bots_is_no_search_without_results(monkeypatch, status, page, outage):
    """The library is the real one; it says «No results found.» to each of them."""
    http_client = pytest.importorskip("ddgs.http_client", reason="needs the package ddgs, of the extra search")
    answer = type("Answer", (), {"status_code": status, "text": page})()
    monkeypatch.setattr(http_client.HttpClient, "request", lambda self, *_, **__: answer)
    web = WebClient("duckduckgo", WebSettings(attempts=1))
    asked = duckduckgo.Provider(duckduckgo.Settings(), web).search("xqzv", max_hits=3)
    if outage:
        with pytest.raises(ToolUnavailable, match=f"no site says that there are none .HTTP {status}"):
            await asked
    else:
        assert await asked == []
    await web.aclose()


# What a research agent asked Tavily, which counts otherwise than we do and answered HTTP 400: murtaza-nasir/maestro#41.
ASKED_IN_PUBLIC = (
    "Which benchmark reports and market analyses from leading industry sources (e.g., SPEC, PassMark, TechInsights, PCMag) detail memory "
    "bandwidth, memory capacity, cache hierarchy, and PCIe lane count as critical criteria for motherboard and memory selection, and what "
    "recommended thresholds or configuration guidelines do they provide for future accelerator add‑on compatibility? Industry Publications"
)
LIMITS = {
    "brave": "400 characters and 50 words", "tavily": "400 characters", "duckduckgo": "500 characters", "serper": "2,048 characters",
    "searxng": "500 characters", "search_r1": "500 characters", "local": "500 characters",
}  # fmt: skip


def search_tool(name, settings, search):
    block = {"provider": name, **settings[name]}
    return build_tools(["search"], ToolContext(search=search, settings=AgentSettings(search=block)))["search"]


@pytest.mark.parametrize("name", LIMITS)
async def test_a_query_that_the_source_does_not_take_is_the_models_mistake_and_is_not_sent(name, settings):
    limit = limit_of({"provider": name})
    assert str(limit) == LIMITS[name]
    search, server = open_provider(name, settings)
    tool = search_tool(name, settings, search)
    for query in ("x" * (limit.chars + 1), ("熊猫" * limit.chars)[: limit.chars + 1], "a " * ((limit.words or limit.chars) + 1)):
        with pytest.raises(ToolError, match=f"at most {limit}. Nothing was searched: ask again with") as error:
            await tool.run({"query": query})
        assert f"{len(query.strip()):,} characters" in str(error.value)
    assert server.requests == []
    assert search.counters == {}
    longest = "x" * limit.chars
    await tool.run({"query": f"  {longest}  "})
    assert search.counters["asked"] == 1


@pytest.mark.parametrize(("name", "refused"), [("brave", True), ("duckduckgo", False), ("serper", False)])
async def test_a_query_that_was_asked_in_public_is_refused_where_it_has_too_many_words(name, refused, settings):
    search, server = open_provider(name, settings)
    asked = search_tool(name, settings, search).run({"query": ASKED_IN_PUBLIC})
    if refused:
        with pytest.raises(ToolError, match=f"has {len(ASKED_IN_PUBLIC)} characters and {len(ASKED_IN_PUBLIC.split())} words"):
            await asked
        assert server.requests == []
    else:
        assert (await asked).error == ""


@pytest.mark.parametrize("name", LIMITS)
def test_a_prompt_names_the_limit_where_the_source_documents_one(name):
    line = describe_tools(["search"], AgentSettings(search={"provider": name}))
    documented = name not in ("searxng", "search_r1", "local")
    assert (f"one string of at most {LIMITS[name]}. " in line) == documented
    assert ("`query` is one string. " in line) != documented


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("tavily", 400, '{"detail":{"error":"Query is too long. Max query length is 400 characters."}}'),  # CherryHQ/cherry-studio#2201
        ("searxng", 414, "<html><head><title>414 Request-URI Too Large</title></head></html>"),  # searxng/searxng#3516
    ],
)
async def test_a_server_that_finds_a_query_too_long_has_no_outage(name, status, text, settings):
    search, server = open_provider(name, settings, httpx.Response(status, text=text))
    with pytest.raises(ToolError, match="as too long; ask again with"):
        await search_tool(name, settings, search).run({"query": ASKED_IN_PUBLIC})
    assert len(server.requests) == 1
