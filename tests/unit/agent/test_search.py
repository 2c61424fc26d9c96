"""Modes, recordings, budgets and bad days of search, whatever the provider."""

import asyncio
import json
import sqlite3

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import StopReason, run_episode
from agent.errors import BudgetExhausted, ReplayMiss, ToolUnavailable
from agent.images import ImageFile
from agent.messages import Message
from agent.search import WebResult
from agent.search.gateway import open_search
from agent.search.recording import AskedQuestion, Recording, RecordingError, Response
from agent.search.web import WebClient, WebSettings
from agent.testing import ScriptedPolicy
from agent.tools import ToolContext, build_tools
from tests.conftest import png
from tests.misbehaving_server import misbehaving_server


@pytest.fixture(scope="module")
def bad_server():
    with misbehaving_server() as server:
        yield server


@pytest.fixture
def server(bad_server):
    bad_server.hits.clear()
    return bad_server


class Counting:
    """SearXNG's answer, once for each request that came through."""

    def __init__(self, wait_s=0.0):
        self.queries = []
        self.wait_s = wait_s

    async def __call__(self, request):
        self.queries.append(request.url.params["q"])
        await asyncio.sleep(self.wait_s)
        row = {"title": f"T{len(self.queries)}", "url": "http://t/", "content": request.url.params["q"]}
        return httpx.Response(200, json={"results": [row]})


def open_counting(tmp_path=None, mode="live", **block):
    counting = Counting(block.pop("wait_s", 0.0))
    given = {"provider": "searxng", "base_url": "http://s.test", "mode": mode, "price_usd": 0.25, **block}
    if tmp_path is not None:
        given["recording"] = tmp_path / "r.sqlite"
    return open_search(given, transport=httpx.MockTransport(counting)), counting


# ---- modes ----


async def test_what_was_recorded_replays_bit_for_bit_without_a_network(tmp_path):
    search, counting = open_counting(tmp_path, "record")
    first = [await search.search(query, max_hits=3) for query in ("Panda", "Köln?", "Panda")]
    assert counting.queries == ["Panda", "Köln?"], "a recording in the making pays for nothing twice"
    await search.aclose()
    replay, silent = open_counting(tmp_path, "replay")
    assert [await replay.search(query, max_hits=3) for query in ("  panda ", "KÖLN?", "ＰＡＮＤＡ")] == first
    assert silent.queries == []
    assert replay.counters == {"asked": 3, "from_recording": 3}
    await replay.aclose()


async def test_a_miss_in_replay_is_a_typed_error_or_nothing_found_and_is_counted(tmp_path):
    search, _ = open_counting(tmp_path, "record")
    await search.search("panda", max_hits=3)
    await search.aclose()
    replay, _ = open_counting(tmp_path, "replay")
    with pytest.raises(ReplayMiss, match="'bear'.*on_miss: empty"):
        await replay.search("bear", max_hits=3)
    with pytest.raises(ReplayMiss):
        await replay.search("panda", max_hits=4)
    empty, _ = open_counting(tmp_path, "replay", on_miss="empty")
    assert await empty.search("bear", max_hits=3) == []
    assert (await empty.open_page("http://nowhere/")).problem
    assert (replay.counters["replay_misses"], empty.counters["replay_misses"]) == (2, 2)
    other, _ = open_counting(tmp_path, "replay", language="de")
    with pytest.raises(ReplayMiss):
        await other.search("panda", max_hits=3)


def test_off_takes_the_source_away_and_live_records_nothing(tmp_path):
    assert open_search({"provider": "searxng", "base_url": "http://s", "mode": "off"}) is None
    assert open_search(None) is None
    with pytest.raises(ValueError, match="needs `recording:`"):
        open_search({"provider": "searxng", "base_url": "http://s", "mode": "record"})
    with pytest.raises(FileNotFoundError, match="mode: record"):
        open_counting(tmp_path, "replay")
    with pytest.raises(ValueError, match="mode"):
        open_search({"provider": "searxng", "base_url": "http://s", "mode": "sometimes"})


async def test_a_replay_needs_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "k")
    block = {"provider": "serper", "recording": tmp_path / "r.sqlite"}
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json={"organic": [{"title": "T", "link": "l"}]}))
    search = open_search(block | {"mode": "record"}, transport=answer)
    await search.search("q", max_hits=2)
    await search.aclose()
    monkeypatch.delenv("SERPER_API_KEY")
    replay = open_search(block | {"mode": "replay"})
    assert await replay.search("q", max_hits=2) == [WebResult(title="T", link="l")]
    await replay.aclose()
    assert b'"k"' not in (tmp_path / "r.sqlite").read_bytes()


async def test_images_and_pages_are_recorded_too(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "cache.json").write_text(
        json.dumps({"q1": {"tool_returned_web_title": ["A"], "cached_images_path": ["a.png"]}})
    )
    block = {"provider": "mmsearch_r1", "path": tmp_path / "cache.json", "recording": tmp_path / "r.sqlite"}
    live = open_search(block | {"mode": "record"})
    hits = await live.search_image(ImageFile(png(5, 5)), item_id="q1", max_hits=3)
    await live.aclose()
    (tmp_path / "a.png").unlink()
    replay = open_search(block | {"mode": "replay"})
    assert await replay.search_image(ImageFile(png(5, 5)), item_id="q1", max_hits=3) == hits
    with pytest.raises(ReplayMiss):
        await replay.search_image(ImageFile(png(6, 6)), item_id="q1", max_hits=3)
    await replay.aclose()


async def test_equal_questions_at_the_same_time_are_one_request_and_survive_a_cancelled_asker():
    search, counting = open_counting(wait_s=0.05)
    askers = [asyncio.create_task(search.search("panda", max_hits=3)) for _ in range(16)]
    await asyncio.sleep(0.01)
    askers[0].cancel()
    answers = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(answer == answers[1] for answer in answers[1:])
    assert len(counting.queries) == 1
    assert search.counters["coalesced"] == 15


# ---- recordings ----


@given(
    st.text(), st.dictionaries(st.text(), st.one_of(st.integers(), st.text()), max_size=3), st.recursive(st.text(), st.lists)
)
def test_any_answer_comes_back_from_a_recording_unchanged(query, options, content):
    recording = Recording.__new__(Recording)
    recording.__init__(_memory(), writable=True)
    question = AskedQuestion(provider="p", kind="search", query=query.encode("utf-8", "replace").decode(), options=options)
    response = Response(content, {ImageFile(png()).sha256: png()})
    recording.put(question, response)
    assert recording.get(question) == response
    recording.close()


def _memory():
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp()) / "r.sqlite"


async def test_a_corrupt_entry_is_asked_again_or_is_our_outage(tmp_path):
    search, _ = open_counting(tmp_path, "record")
    await search.search("panda", max_hits=3)
    await search.aclose()
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        db.execute("UPDATE entries SET response = replace(response, 'T1', 'T9')")
    db.close()
    replay, _ = open_counting(tmp_path, "replay")
    with pytest.raises(ToolUnavailable, match="damaged; record it again"):
        await replay.search("panda", max_hits=3)
    await replay.aclose()
    again, counting = open_counting(tmp_path, "record")
    assert (await again.search("panda", max_hits=3))[0].title == "T1"
    assert (len(counting.queries), again.counters["corrupt_entries"]) == (1, 1)
    await again.aclose()
    mended, _ = open_counting(tmp_path, "replay")
    assert (await mended.search("panda", max_hits=3))[0].title == "T1"
    await mended.aclose()


def test_another_version_or_another_file_is_refused_with_advice(tmp_path):
    Recording(tmp_path / "r.sqlite", writable=True).close()
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    db.close()
    for writable in (True, False):
        with pytest.raises(RecordingError, match="version 99, this code reads version 1"):
            Recording(tmp_path / "r.sqlite", writable=writable)
    (tmp_path / "text.sqlite").write_text("hello, this is no database at all" * 10)
    with pytest.raises(RecordingError, match="is no recording"):
        Recording(tmp_path / "text.sqlite", writable=False)


def test_merging_keeps_what_is_there_and_adds_what_is_not(tmp_path):
    one, two = Recording(tmp_path / "1.sqlite", writable=True), Recording(tmp_path / "2.sqlite", writable=True)
    ask = lambda query: AskedQuestion(provider="p", kind="image", query=query, options={})  # noqa: E731
    one.put(ask("a"), Response(["mine"]))
    two.put(ask("a"), Response(["theirs"]))
    two.put(ask("b"), Response(["new"], {ImageFile(png()).sha256: png()}))
    assert one.merge(two) == (1, 1)
    assert one.get(ask("a")) == Response(["mine"])
    assert one.get(ask("b")) == two.get(ask("b"))
    assert [entry["query"] for entry in one.export()] == sorted(["a", "b"], key=lambda query: ask(query).key)
    one.close()
    two.close()


# ---- budgets ----


async def test_a_budget_of_calls_or_money_stops_and_outlives_the_process(tmp_path):
    for limit in ({"max_calls": 2}, {"max_cost_usd": 0.5}):
        (tmp_path / "r.sqlite").unlink(missing_ok=True)
        search, counting = open_counting(tmp_path, "record", **limit)
        await search.search("a", max_hits=1)
        await search.aclose()
        search, more = open_counting(tmp_path, "record", **limit)
        await search.search("b", max_hits=1)
        with pytest.raises(BudgetExhausted, match=r"2 calls and \$0.50 are spent"):
            await search.search("c", max_hits=1)
        assert (len(counting.queries), len(more.queries)) == (1, 1)
        assert await search.search("a", max_hits=1), "what is recorded costs nothing"
        assert await search.spent() == (2, 0.5)
        await search.aclose()


async def test_many_askers_never_spend_more_than_the_budget():
    search, counting = open_counting(max_calls=5, wait_s=0.001)
    answers = await asyncio.gather(*(search.search(str(n), max_hits=1) for n in range(40)), return_exceptions=True)
    assert len(counting.queries) == 5
    assert sum(isinstance(answer, BudgetExhausted) for answer in answers) == 35


async def test_a_request_that_was_not_answered_costs_a_call_and_no_money(server):
    settings = WebSettings(attempts=2, deadline_s=5, price_usd=0.25)
    web = WebClient("searxng", settings)
    with pytest.raises(ToolUnavailable):
        await web.json("GET", f"{server.url}/status500")
    assert await web.spent() == (2, 0.0)
    await web.json("GET", f"{server.url}/wait")
    await web.json("GET", f"{server.url}/wait")
    calls, usd = await web.spent()
    assert (calls, usd) == (5, 0.5)
    await web.aclose()


async def test_an_exhausted_budget_ends_the_episode_as_failed_and_the_run_with_it():
    search, _ = open_counting(max_calls=0)
    tools = build_tools(["search"], ToolContext(search=search))
    policy = ScriptedPolicy('<tool_call>{"name": "search", "arguments": {"query": "q"}}</tool_call>')
    episode = await run_episode([Message("user", "q")], policy=policy, tools=tools)
    assert (episode.stop_reason, episode.outage.ends_run) == (StopReason.FAILED, True)
    assert episode.failure.startswith("BudgetExhausted: searxng")


# ---- bad days ----


def web(**settings):
    return WebClient("searxng", WebSettings(**({"attempts": 3, "deadline_s": 10.0, "timeout_s": 5.0} | settings)))


@pytest.mark.parametrize(
    ("kind", "said", "attempts"),
    [
        ("garbage", "no JSON: '<html>", 2),
        ("status429", "HTTP 429.*lower requests_per_s", 2),
        ("status500", "HTTP 500.*server has trouble", 2),
        ("status503", "HTTP 503", 2),
        ("status401", "HTTP 401.*key is missing or wrong", 1),
        ("cut", "Error", 2),
        ("reset", "Error", 2),
    ],
)
async def test_a_bad_answer_is_tried_again_and_then_an_outage_with_status_and_advice(server, kind, said, attempts):
    client = web(attempts=2)
    with pytest.raises(ToolUnavailable, match=said):
        await client.json("GET", f"{server.url}/{kind}")
    assert server.hits[kind] == attempts
    await client.aclose()


async def test_a_server_that_recovers_is_answered_and_its_wish_to_wait_is_kept(server):
    client = web()
    assert await client.json("GET", f"{server.url}/twice500")
    assert client.counters["retries"] == 2
    started = asyncio.get_running_loop().time()
    assert await client.json("GET", f"{server.url}/wait")
    assert asyncio.get_running_loop().time() - started >= 0.4
    await client.aclose()


async def test_a_slow_server_meets_the_deadline(server):
    client = web(timeout_s=0.1, deadline_s=0.3)
    started = asyncio.get_running_loop().time()
    with pytest.raises(ToolUnavailable, match="gave no answer"):
        await client.json("GET", f"{server.url}/slow")
    assert asyncio.get_running_loop().time() - started < 0.9
    await client.aclose()


async def test_a_server_that_is_not_there_is_an_outage():
    client = web(attempts=1)
    with pytest.raises(ToolUnavailable, match="ConnectError"):
        await client.json("GET", "http://127.0.0.1:9/")
    await client.aclose()


async def test_rate_and_concurrency_are_kept():
    now, most = 0, 0

    async def once():
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    client = web(max_in_flight=3)
    await asyncio.gather(*(client.attempt(once) for _ in range(12)))
    assert most == 3
    await client.aclose()
    client = web(requests_per_s=50.0)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.attempt(once) for _ in range(11)))
    assert asyncio.get_running_loop().time() - started >= 0.2
    await client.aclose()
