"""The server of `deepeyes chat --web`: who may come in, what is taken in, what is streamed. The page itself is looked at in
tests/services/test_chat_page.py.
"""

import asyncio
import io
import json
import re
import socket
import threading
import zipfile
from contextlib import contextmanager
from html.parser import HTMLParser

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import run_episode
from agent.images import ImageFile
from agent.messages import Message
from agent.openai_chat import ChatClient, ChatSettings
from agent.records import RolloutFacts
from agent.settings import AgentSettings
from agent.setup import open_setup
from agent.testing import ScriptedPolicy
from agent.trajectory import TrajectoryWriter, read_rollouts
from code_sandbox.command_line import CommandEnded
from deepeyes.chat.command import main, parse
from deepeyes.chat.web import talks
from deepeyes.chat.web.app import MOST_UPLOAD_BYTES, ChatServer, make_chat_app
from deepeyes.chat.web.choices import Chosen, settings_for
from deepeyes.chat.web.rows import _MOST_CHARS
from deepeyes.chat.web.serve import _PageServer
from deepeyes.chat.web.shelf import ImageShelf, ShelfFull
from evaluation.smoke.scripted_model import request_server
from tests.conftest import ROOT, png
from viewer.coloured import coloured

JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}


def chat_server(out, base_url="http://127.0.0.1:9/v1", model="", **settings):
    return ChatServer(
        setup=open_setup(AgentSettings(tools=(), **settings)),
        client=ChatClient(ChatSettings(base_url=base_url, model=model, attempts=1)),
        out=out,
    )


@pytest.fixture
def server(tmp_path):
    server = chat_server(tmp_path)
    yield server
    server.shelf.close()


@pytest.fixture
def client(server):
    return TestClient(make_chat_app(server), base_url="http://localhost", follow_redirects=False)


@contextmanager
def serving(server, **access):
    """The application behind real HTTP: a stream has no end that a test client could wait for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(make_chat_app(server, **access), log_level="warning", timeout_graceful_shutdown=5)
        runs = _PageServer(config, server)
        thread = threading.Thread(target=asyncio.run, args=(runs.serve(sockets=[listener]),), daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            try:
                yield client
            finally:
                runs.should_exit = True
                thread.join(20)
                assert not thread.is_alive()


def rows_until(client, conversation, kind, *, headers=None):
    """(number, row) each, up to the first of a kind."""
    found = []
    with client.stream("GET", f"/api/conversations/{conversation}/events", headers=headers or {}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        number = 0
        for line in response.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            if line.startswith("data: "):
                found.append((number, json.loads(line[6:])))
                if found[-1][1]["kind"] == kind:
                    return found
    raise AssertionError(f"the stream ended without {kind}: {found}")


# ---- who may come in ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "127.0.0.1:8766"}, 200),
        ({"host": "[::1]:8766"}, 200),
        ({"host": "chat.localhost"}, 200),
        ({"host": "rebound.example"}, 421),
        ({"host": "localhost.rebound.example"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link was followed
    ],
)
def test_a_page_of_another_origin_or_name_gets_nothing(client, headers, status):
    answer = client.get("/", headers=headers)
    assert answer.status_code == status
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_a_body_that_a_foreign_page_may_send_unasked_is_refused(client, kind):
    for path in ("/api/questions", "/api/images", "/api/conversations/x/stop"):
        assert client.post(path, content=b"{}", headers={"content-type": kind}).status_code == 415


def test_beyond_loopback_the_link_brings_the_token_once_and_a_cookie_stands_for_it_then(server):
    app = make_chat_app(server, token="secret-token", hosts=("*",), cookie="c")
    client = TestClient(app, base_url="http://gpu-box:8766", follow_redirects=False)
    for url in ("/", "/api/setup", "/?token=wrong", "/?token=", "/view/"):
        answer = client.get(url)
        assert answer.status_code == 401
        assert "secret-token" not in answer.text
    assert client.get("/", headers={"cookie": "c=wrong; ="}).status_code == 401
    answer = client.get("/?token=secret-token&x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?x=1")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200
    bearer = TestClient(app, base_url="http://gpu-box:8766", headers={"authorization": "Bearer secret-token"})
    assert bearer.get("/").status_code == 200
    # With the cookie, too, a page of another origin gets nothing.
    assert client.post("/api/questions", json={"text": "q"}, headers={"origin": "http://evil"}).status_code == 403


def test_the_command_prints_the_token_only_where_others_can_reach_it_and_a_taken_port_is_said_first(capsys):
    assert parse(["--web"]).web.host == "127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CommandEnded, match="give another --port"):
        main(["--web", "--port", str(taken.getsockname()[1])])
    assert capsys.readouterr().out == ""
    with pytest.raises(CommandEnded, match="no run at nowhere"):
        main(["--web", "--port", "0", "--replay", "nowhere"])
    with pytest.raises(SystemExit):
        main(["--web", "a question"])
    assert "on the page" in capsys.readouterr().err


# ---- what is taken in ----


def test_only_images_are_taken_in_and_of_one_that_is_too_large_no_more_than_its_size(client):
    data = png(30, 20)
    kept = client.post("/api/images", content=data, headers=BYTES).json()
    assert kept == {"image": ImageFile(data).sha256, "width": 30, "height": 20}
    shown = client.get(f"/api/images/{kept['image']}")
    assert (shown.content, shown.headers["content-type"]) == (data, "image/png")
    for other in (b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", data[:40]):
        answer = client.post("/api/images", content=other, headers=BYTES)
        assert answer.status_code == 415
        assert "no image" in answer.json()["detail"]
    announced = client.post("/api/images", content=b"x", headers=BYTES | {"content-length": str(100 << 20)})
    assert announced.status_code == 413
    assert "20 MiB" in announced.json()["detail"]
    for name in ("../page.html", "x" * 64, "0" * 64):
        assert client.get(f"/api/images/{name}").status_code == 404


def test_an_upload_of_100_mb_without_a_length_is_cut_off(tmp_path):
    sent = 0

    def pieces():
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield b"x" * (1 << 20)

    with serving(chat_server(tmp_path)) as client:
        try:
            status = client.post("/api/images", content=pieces(), headers=BYTES).status_code
        except httpx.TransportError:
            status = 413  # the server has hung up before all was sent
    assert status == 413
    assert sent < 100 << 20
    assert MOST_UPLOAD_BYTES == 20 << 20


def test_a_full_shelf_says_so():
    shelf = ImageShelf(most_bytes=100)
    with pytest.raises(ShelfFull, match="keeps no more"):
        shelf.keep(ImageFile(png(64, 64) + b"x" * 100))
    assert shelf.get("0" * 64) is None
    shelf.close()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "JSON"),
        (b"[]", 422, ""),
        (b'{"text": ""}', 422, "at least 1 character"),
        (b'{"text": "q", "evil": 1}', 422, "evil"),
        (b'{"text": "q", "images": ["0"]}', 404, "add it again"),
        (b'{"text": "q", "conversation": "0"}', 404, "is over"),
        (b'{"text": "q", "chosen": {"tools": ["shell"]}}', 422, "has no tool 'shell'; it has no tools"),
        (b'{"text": "q", "chosen": {"limits": {"max_turns": 10}}}', 422, "max_turns 10 is more than the 9"),
        (b'{"text": "q", "chosen": {"limits": {"max_turns": 0}}}', 422, "max_turns"),
        (b'{"text": "q", "chosen": {"limits": {"max_turns": 1.5}}}', 422, "max_turns"),
        (b'{"text": "q", "chosen": {"limits": {"max_hits": 1}}}', 422, "the limits are max_turns, "),
        (b'{"text": "q", "chosen": {"temperature": 3}}', 422, "temperature"),
        (b'{"text": "q", "chosen": {"sandbox_urls": ["http://x"]}}', 422, "sandbox_urls"),
        (b'{"text": "q"}', 502, "is the server up?"),
        (b'{"text": "' + b"x" * (2 << 20) + b'"}', 413, "1 MiB"),
    ],
)
def test_a_question_that_cannot_be_asked_is_said_in_words(client, body, status, said):
    answer = client.post("/api/questions", content=body, headers=JSON)
    assert answer.status_code == status
    assert said in str(answer.json()["detail"])


def test_what_may_be_chosen_is_never_more_than_the_server_has():
    settings = AgentSettings(tools=("python", "search"), search={"provider": "serper"}, max_reply_tokens=None)
    assert settings_for(settings, Chosen()) == settings
    fewer = settings_for(settings, Chosen(tools=("search",), limits={"max_turns": 2, "max_reply_tokens": 50, "python_timeout_s": 1.5}))
    assert (fewer.tools, fewer.max_turns, fewer.max_reply_tokens, fewer.python_timeout_s) == (("search",), 2, 50, 1.5)
    with pytest.raises(ValueError, match=r"python_timeout_s 201 is more than the 200"):
        settings_for(settings, Chosen(limits={"python_timeout_s": 201}))


# ---- what is streamed ----


@pytest.fixture
def talking(tmp_path):
    """(client, folder of the records), with a model that writes slowly."""
    with (
        request_server(lambda _: "<think>Slowly.</think><answer>done</answer>", models=("m", "n"), pause_s=0.01) as url,
        serving(chat_server(tmp_path / "run", url)) as client,
    ):
        yield client, tmp_path / "run"


def test_tokens_come_as_they_are_written_and_whoever_comes_late_gets_the_whole(talking):
    client, run = talking
    asked = client.post("/api/questions", json={"text": "q", "chosen": {"model": "n"}})
    assert asked.status_code == 202
    name = asked.json()["conversation"]
    busy = client.post("/api/questions", json={"text": "another", "conversation": name})
    assert (busy.status_code, busy.json()["detail"]) == (409, "a question is being answered; wait for its end, or stop it")
    rows = rows_until(client, name, "idle")
    kinds = [row["kind"] for _, row in rows]
    assert kinds[0] == "question"
    assert kinds.count("text") > 2
    assert kinds[-3:] == ["reply", "end", "idle"]
    assert "".join(row["text"] for _, row in rows if row["kind"] == "text") == rows[-3][1]["written"]
    late = rows_until(client, name, "idle")
    assert [row["kind"] for _, row in late] == ["question", "reply", "end", "idle"]
    again = rows_until(client, name, "idle", headers={"last-event-id": str(late[1][0])})
    assert [row["kind"] for _, row in again] == ["end", "idle"]
    (record,) = read_rollouts(run)
    assert record.facts.question == "q"
    found = client.get(f"/api/episodes/{record.episode.episode_id}/download")
    archive = zipfile.ZipFile(io.BytesIO(found.content))
    (line,) = [entry for entry in archive.namelist() if entry.endswith("episodes.jsonl")]
    assert b'"done"' in archive.read(line)
    replayed = client.get("/api/records/1").json()
    assert [row["kind"] for row in replayed] == ["question", "reply", "end"]
    assert client.get("/view/").status_code == 200
    assert client.get("/api/records/9").status_code == 404


def test_nobody_needs_to_watch_and_a_stop_is_recorded(talking):
    client, run = talking
    client.post("/api/questions", json={"text": "unwatched"})
    name = client.post("/api/questions", json={"text": "stopped"}).json()["conversation"]
    assert client.post(f"/api/conversations/{name}/stop", json={}).json() == {"stopped": True}
    assert client.post(f"/api/conversations/{name}/stop", json={}).json() == {"stopped": False}
    follow_up = client.post("/api/questions", json={"text": "and then?", "conversation": name})
    rows_until(client, name, "idle")
    assert follow_up.status_code == 202
    for _ in range(100):
        records = list(read_rollouts(run))
        if len(records) == 3:
            break
        threading.Event().wait(0.1)
    assert {record.facts.question: record.episode.failed for record in records} == {
        "unwatched": False, "stopped": True, "and then?": False,
    }  # fmt: skip


def test_a_server_that_ends_records_what_was_under_way_and_lets_pages_go(tmp_path):
    with request_server(lambda _: "<answer>" + "x" * 4000 + "</answer>", pause_s=0.01) as url:
        with serving(chat_server(tmp_path / "run", url, "m")) as client:
            name = client.post("/api/questions", json={"text": "cut"}).json()["conversation"]
            ended = []
            watching = threading.Thread(target=lambda: ended.extend(rows_until(client, name, "closed")))
            watching.start()
            threading.Event().wait(0.3)
        watching.join(10)
    assert ended[-1][1] == {"kind": "closed"}
    (record,) = read_rollouts(tmp_path / "run")
    assert record.episode.failure.startswith("Stopped")


def test_conversations_beyond_the_last_few_make_room_unless_all_are_busy(talking, monkeypatch):
    client, _ = talking
    monkeypatch.setattr(talks, "MOST_TALKS", 2)
    names = []
    for _ in range(2):
        names.append(client.post("/api/questions", json={"text": "q"}).json()["conversation"])
    full = client.post("/api/questions", json={"text": "q"})
    assert (full.status_code, full.json()["detail"]) == (429, "2 questions are being answered; wait for one of them")
    rows_until(client, names[0], "idle")
    known = rows_until(client, names[1], "idle")[-1][0]
    # The first to be begun need not be the first to be answered: which of them was quiet longest is settled here.
    client.post("/api/questions", json={"text": "q", "conversation": names[1]})
    rows_until(client, names[1], "idle", headers={"last-event-id": str(known)})
    third = client.post("/api/questions", json={"text": "q"}).json()["conversation"]
    rows_until(client, third, "idle")
    assert client.get(f"/api/conversations/{names[0]}/events").status_code == 404


def test_where_nothing_is_recorded_yet_nothing_is_replayed_and_the_viewer_says_so(client):
    assert client.get("/api/records").json() == {"total": 0, "rows": []}
    assert client.get("/api/records/1").status_code == 404
    assert "no episodes.jsonl" in client.get("/view/").json()["detail"]


async def test_a_record_of_others_is_replayed_with_what_it_lacks_said_in_its_place(tmp_path, server):
    """Of no chat, its images gone, one of them broken, and with a name that is no content hash."""
    opening = (Message("system", "s"), Message("user", "<image><image>\nq?", (ImageFile(png()), ImageFile(png(9, 9)))))
    policy = ScriptedPolicy('<think>t</think><tool_call>{"name": "nothing", "arguments": {}}</tool_call>', "<answer>a</answer>")
    episode = await run_episode(opening, policy=policy, tools={})
    TrajectoryWriter(tmp_path).write(episode, RolloutFacts(source="vstar", item_id="i1"))
    gone, broken = (ImageFile(png(*size)).sha256 for size in ((8, 8), (9, 9)))
    (tmp_path / "images" / gone).unlink()
    (tmp_path / "images" / broken).write_bytes(b"no image any more")
    client = TestClient(make_chat_app(server), base_url="http://localhost")
    assert [row["item_id"] for row in client.get("/api/records").json()["rows"]] == ["i1"]
    rows = client.get("/api/records/1").json()
    assert [row["kind"] for row in rows] == ["question", "reply", "observation", "reply", "end"]
    assert all(part["text"].startswith("[an image that cannot be shown: ") for part in rows[0]["parts"][:2])
    assert rows[2]["error"] == "unknown tool"
    for name in (gone, broken, "..%2f..%2fetc%2fpasswd"):
        assert client.get(f"/api/images/{name}").status_code == 404
    assert client.get("/api/records/1/download").status_code == 422


# ---- rows ----


@given(st.text(st.characters(blacklist_characters="\r", blacklist_categories=("Cs",)), max_size=300))
def test_coloured_code_is_the_code(code):
    assert "".join(text for _, text in coloured(code)) == code


def test_a_text_that_no_browser_shows_is_cut_with_a_mark(talking):
    client, _ = talking
    name = client.post("/api/questions", json={"text": "y" * 100_000}).json()["conversation"]
    rows = rows_until(client, name, "idle")
    assert len(rows[0][1]["parts"][-1]["text"]) == 100_000 < _MOST_CHARS
    assert client.post("/api/questions", json={"text": "y" * 100_001}).status_code == 422


class Texts(HTMLParser):
    """What of a page's markup is read: texts, and the attributes that are read aloud or shown."""

    def __init__(self):
        super().__init__()
        self.found, self.inside = set(), []

    def handle_starttag(self, tag, attributes):
        self.inside.append(tag)
        self.found |= {value for name, value in attributes if name in ("aria-label", "placeholder", "title") and value}

    def handle_data(self, data):
        if self.inside[-1:] != ["title"] and re.search("[A-Za-z]", data):
            self.found.add(data.strip())


def test_every_word_of_the_page_is_there_in_chinese():
    web = ROOT / "deepeyes/chat/web"
    known = set(re.findall(r'"((?:[^"\\]|\\.)+)": "', (web / "words.js").read_text()))
    page = Texts()
    page.feed((web / "page.html").read_text())
    said = set().union(*(re.findall(r'\bsay\("([^"]+)"', (web / f"{name}.js").read_text()) for name in ("page", "replay", "transcript")))
    assert len(said) > 20
    stops = re.search(r"STOPS = \{(.*?)\};", (web / "transcript.js").read_text(), re.DOTALL).group(1)
    titles = re.findall(r'block\("([^"]+)"', (web / "transcript.js").read_text())
    assert (page.found | said | {*re.findall(r': "([^"]+)"', stops)} | {*titles}) - known == {"DeepEyes"}
