"""Episodes of a curation that search: recorded, exported with what was found, replayed without an index, never «wrong» by an outage."""

import json
import re
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.search.providers.local import build_index
from agent.trajectory import read_rollouts
from curation.errors import CurationStopped
from data.families.lookup import pages, towns
from evaluation.smoke.scripted_model import request_server
from tests.unit.curation.conftest import row
from tests.unit.curation.test_models import models, said

TOWNS = dict(list(towns(1).items())[:4])
ROWS = [
    row(number, question=f"What is the emblem of {town}?", gold=emblem, image=False)
    for number, (town, emblem) in enumerate(TOWNS.items())
]
SYNTHESISE = [
    {"synthesise": {"on": "rl", "with": ["teacher"], "k": 1, "tools": ["search"], "keep": {"min_calls": 1}}},
    {"export": {"rl": None, "sft": "llamafactory"}},
]
COUNT = [
    {"sample": {"as": "tools", "with": "base", "mode": "agent", "k": 2, "tools": ["search"]}},
    {"keep": {"tools.right": {"min": 1}}},
]


def searcher(body):
    """Searches, and answers with what it read: it knows nothing itself."""
    said_before = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    texts = [message["content"] for message in body["messages"] if message["role"] == "user"]
    texts = [text if isinstance(text, str) else "".join(part.get("text", "") for part in text) for text in texts]
    town = next(town for town in TOWNS if town in texts[0])
    if not said_before:
        call = json.dumps({"name": "search", "arguments": {"query": f"{town} emblem"}})
        return f"<think>I do not know {town}.</think>\n<tool_call>{call}</tool_call>"
    emblem = re.search(rf"{town}[^.]*?\b({'|'.join(TOWNS.values())})\b", texts[-1])
    return said(emblem[1] if emblem else "nothing")


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(vars_of(page)) + "\n" for page in pages(1)))
    target = tmp_path / "index"
    build_index(path, target)
    return target


def vars_of(page):
    return {"title": page.title, "text": page.snippet, "link": page.link}


def test_what_was_found_is_recorded_exported_and_replayed_without_the_index(bench, index):
    source = bench.source("mine", ROWS)
    recording = str(bench.directory / "searches.sqlite")
    block = {"provider": "local", "path": str(index), "mode": "record", "recording": recording}
    with request_server(searcher) as url:
        bench.run([source], SYNTHESISE, models=models(url, "teacher"), agent={"search": block, "primer": ""})
        talks = json.loads((bench.directory / "store/sets/toy/sft.json").read_text())
        shutil.rmtree(index)
        again = {"search": block | {"mode": "replay"}, "primer": ""}
        bench.run([source], SYNTHESISE, models=models(url, "teacher"), agent=again, run=str(bench.directory / "again"))
    assert bench.kept("01_synthesise") == ["i0", "i1", "i2", "i3"]
    assert len(talks) == 4
    for talk, (town, emblem) in zip(talks, TOWNS.items(), strict=True):
        assert [message["role"] for message in talk["messages"]] == ["system", "user", "assistant", "user", "assistant"]
        assert emblem in talk["messages"][3]["content"]
        assert town in talk["messages"][3]["content"]
    assert json.loads((bench.directory / "store/sets/toy/sft.json").read_text()) == talks
    first, replayed = (list(read_rollouts(bench.directory / name / "01_synthesise/episodes")) for name in ("run", "again"))
    assert {one.facts.item_id: texts(one) for one in first} == {one.facts.item_id: texts(one) for one in replayed}
    assert all(one.episode.turns[0].action.name == "search" for one in first)


def texts(rollout):
    return [turn.observation.text for turn in rollout.episode.turns if turn.observation is not None]


@contextmanager
def search_server(state):
    """A SearXNG that answers out of the towns' pages while it is well."""
    found = [{"title": page.title, "url": page.link, "content": page.snippet} for page in pages(1)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            town = next((town for town in TOWNS if town in self.path), "")
            state["asked"][town] += 1
            ill = state["ill"](town)
            results = [one for one in found if town in one["title"] or town in one["content"]]
            payload = b"away" if ill else json.dumps({"results": results[:3]}).encode()
            self.send_response(503 if ill else 200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            """Keeps quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"provider": "searxng", "base_url": f"http://127.0.0.1:{server.server_port}", "attempts": 1}
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("steps", "step"), [(COUNT, "02_keep"), (SYNTHESISE, "01_synthesise")])
def test_a_search_that_is_away_leaves_its_rows_open_and_they_are_asked_for_when_it_is_back(bench, steps, step):
    first = next(iter(TOWNS))
    state = {"ill": lambda town: town == first, "asked": Counter()}
    source = bench.source("mine", ROWS)
    with request_server(searcher) as url, search_server(state) as block:
        given = {"models": models(url, "teacher") | models(url), "agent": {"search": block, "primer": ""}}
        bench.run([source], steps, **given)
        assert bench.kept(step) == ["i1", "i2", "i3"]
        summary = bench.step(step).summary()
        assert (summary["dropped"], summary["open"]) == (0, 1)
        assert bench.reasons(step)["i0"].startswith("open: ")
        well = state["asked"].copy()
        state["ill"] = lambda town: False
        bench.run([source], steps, **given)
    assert bench.kept(step) == ["i0", "i1", "i2", "i3"]
    assert {town for town in TOWNS if state["asked"][town] > well[town]} == {first}


def test_a_search_that_answers_nobody_stops_the_run_and_no_row_is_judged(bench):
    state = {"ill": lambda town: True, "asked": Counter()}
    rows = [row(number, question=one["extra_info"]["question"], gold=one["reward_model"]["ground_truth"], image=False)
            for number, one in enumerate(ROWS * 6)]  # fmt: skip
    with (
        request_server(searcher) as url,
        search_server(state) as block,
        pytest.raises(CurationStopped, match=r"2\d answers in a row were lost, the last because of .*503"),
    ):
        bench.run([bench.source("mine", rows)], COUNT, models=models(url), agent={"search": block, "primer": ""})
    assert bench.step("01_tools").summary() is None
