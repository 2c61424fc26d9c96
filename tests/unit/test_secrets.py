"""A secret goes in at every entrance, with servers that are down, that refuse it in their own words, and that work; it comes out nowhere."""

import base64
import json
import logging
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxError
from code_sandbox.redaction import clean_key, redacted, secrets_of
from code_sandbox.server.store import SessionStore
from cold_start.run_state import RunFacts, differences, record
from cold_start.train import main as cold_start_main
from deepeyes.cli import main
from evaluation.run import main as evaluate
from evaluation.smoke.lookalikes import write_lookalike
from judge.cache import open_cache

CANARY = "canary7f3a9b2c5d8e1f60"
PART = CANARY[:12]
LOGIN = base64.b64encode(f"user:{CANARY}".encode()).decode()
STATES = ("down", "refuses", "turns_away", "works")
KEYS = ("MODEL_API_KEY", "OPENAI_API_KEY", "JUDGE_API_KEY", "SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_API_KEY", "CODE_SANDBOX_TOKEN")
FORMS = {
    "login": lambda url: url.replace("://", f"://user:{CANARY}@"),
    "token for a name": lambda url: url.replace("://", f"://{CANARY}@"),
    "query": lambda url: f"{url}?api_key={CANARY}",
    "login with a stroke": lambda url: url.replace("://", f"://user:{PART}/{CANARY}@"),
    "key": lambda url: url,
    "key with a line end": lambda url: url,
    "key of two lines": lambda url: url,
}


def of_redis(form, url):
    """The form as a Redis knows it."""
    return FORMS[form](url).replace("api_key=", "password=")


AS_KEY = {"key": CANARY, "key with a line end": f"{CANARY}\r\n", "key of two lines": f"{CANARY}\n{CANARY}"}
MOST_FORMS = ("login", "login with a stroke", "query", "key")
FOUND = [{"title": "Red panda", "url": "http://a/1", "link": "http://a/1", "content": "x", "snippet": "x", "description": "x"}]


class Handler(BaseHTTPRequestHandler):
    """Works like a model server, a judge, a search provider and a sandbox's `/health`; a refusal repeats all that it was sent."""

    state = "works"

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def answer(self, body):
        if self.state == "refuses" or (self.state == "turns_away" and body is not None):
            kind, _, sent = (self.headers.get("Authorization") or "").partition(" ")
            opened = base64.b64decode(sent).decode() if kind == "Basic" else sent
            said = f"Incorrect API key provided: {opened!r} ({self.path}; {' '.join(self.headers.values())})"
            return self.send(401, {"error": {"message": said}, "message": said, "detail": said})
        if body is None and "health" in self.path:
            isolation = {"level": 2, "name": "namespaces", "holds": [], "missing": []}
            return self.send(200, {
                "status": "ok", "server_id": "s", "backend": "fork", "sessions": 0, "max_sessions": 4, "running_cells": 0,
                "waiting_cells": 0, "redis": "ok", "isolation": isolation,
            })  # fmt: skip
        if b'"messages"' in (body or b""):
            text = "CORRECT" if b"CORRECT" in body else "<answer>A</answer>"
            if b'"stream":true' in body.replace(b" ", b""):
                piece = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
                return self.send(200, f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n", "text/event-stream")
            return self.send(200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}})
        return self.send(200, {"data": [{"id": "m"}], "results": FOUND, "organic": FOUND, "web": {"results": FOUND}})

    def send(self, status, content, kind="application/json"):
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Keeps quiet."""


@contextmanager
def http_server(state):
    """The address of a server in that state."""
    if state == "down":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("InState", (Handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def redis_reply(command):
    name = [*command.split(b"\r\n"), b""][1].upper()  # behind its length
    nothing = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"GET": b"_\r\n", b"HMGET": b"*2\r\n_\r\n_\r\n", b"EVAL": b":1\r\n"}
    return nothing.get(name, b"+OK\r\n")


@contextmanager
def redis_server(state):
    """The address of what answers like a Redis: an error that repeats the password, or OK to everything."""
    if state == "down":
        yield "redis://127.0.0.1:9/0"
        return
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    for command in re.split(rb"(?m)^\*\d+\r\n", data)[1:] or [data]:  # a bare line is a command, too
                        refusal = b"-WRONGPASS " + command.replace(b"\r\n", b" ") + b"\r\n"
                        connection.sendall(redis_reply(command) if state == "works" else refusal)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    finally:
        listening.close()


@pytest.fixture
def walk(tmp_path, monkeypatch, capfd):
    """Calls a command, and looks for the canary in all that it says, logs and writes."""
    for name in (*KEYS, "REDIS_URL", "LLM_AS_A_JUDGE_BASE", "CODE_SANDBOX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODE_SANDBOX_URL", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    log = logging.FileHandler(tmp_path / "all.log")
    rooms = ("agent", "judge", "serving", "code_sandbox", "evaluation", "deepeyes", "viewer", "reinforcement_learning", "httpx")
    for room in rooms:
        logging.getLogger(room).addHandler(log)
    httpx = logging.getLogger("httpx")
    level, filters = httpx.level, list(httpx.filters)
    httpx.setLevel(logging.INFO)  # which writes down each request with its address
    httpx.filters.clear()

    def call(command, *arguments, expect=None):
        ended = "0"
        try:
            command([str(argument) for argument in arguments])
        except SystemExit as error:
            ended = str(error)
        said = capfd.readouterr()
        log.flush()
        texts = {"exit": ended, "stdout": said.out, "stderr": said.err}
        texts |= {str(path): path.read_bytes().decode("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()}
        leaks = [f"{name}: {text}" for name, text in texts.items() if PART in text or LOGIN[:16] in text]
        assert leaks == []
        assert "Traceback" not in said.err
        return ended, said.out + said.err

    yield call
    httpx.setLevel(level)
    httpx.filters[:] = filters
    for room in rooms:
        logging.getLogger(room).removeHandler(log)
    log.close()


def keys(monkeypatch, form):
    for name in KEYS if form in AS_KEY else ():
        monkeypatch.setenv(name, AS_KEY[form])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
def test_an_evaluation_shows_no_secret_of_its_servers(walk, tmp_path, monkeypatch, form, state):
    keys(monkeypatch, form)
    data = write_lookalike("vstar", tmp_path / "data")
    with http_server(state) as url, redis_server(state) as redis:
        secret = FORMS[form](f"{url}/v1")
        search = json.dumps({"provider": "searxng", "base_url": FORMS[form](url), "shared_cache": of_redis(form, redis), "attempts": 1})
        ended, _ = walk(
            evaluate, "--benchmark", "vstar", "--data", data, "--model", "m", "--out", tmp_path / "run", "--base-url", secret,
            "--judge-base-url", FORMS[form](f"{url}/v1"), "--judge-model", "m", "--limit", 1, "--tools", "search", "--search", search,
            "--patience-s", 1, "--outage-attempts", 1, "--dialect", "openai",
        )  # fmt: skip
    if state == "works" and form in ("key", "key with a line end", "login", "token for a name"):
        assert "HTTP Request: POST http://" in (tmp_path / "all.log").read_text()
        assert ended == "0"
        assert (tmp_path / "run/report.html").is_file()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", MOST_FORMS)
def test_a_chat_shows_no_secret_of_its_servers(walk, tmp_path, monkeypatch, form, state):
    keys(monkeypatch, form)
    with http_server(state) as url:
        given = ("--base-url", FORMS[form](f"{url}/v1"), "--dialect", "openai", "--out", tmp_path / "out")
        walk(main, "chat", *given, "--tools", "[]", "What is this?")
        monkeypatch.setenv("CODE_SANDBOX_URL", FORMS[form](url))
        walk(main, "chat", *given, "--tools", "[python]", "What is this?")
        if (tmp_path / "out").is_dir():
            walk(main, "view", tmp_path / "out", "--out", tmp_path / "page.html")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", MOST_FORMS)
def test_the_judges_commands_show_no_secret(walk, monkeypatch, form, state):
    keys(monkeypatch, form)
    with http_server(state) as url:
        walk(main, "judge", "doctor", "--base-url", FORMS[form](f"{url}/v1"), "--model", "m")
        if state == "down":
            return
        one = ("--question", "What colour?", "--gold", "dark red", "--answer", "It is maroon.")
        walk(main, "judge", "--base-url", FORMS[form](f"{url}/v1"), "--model", "m", *one)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", MOST_FORMS)
@pytest.mark.parametrize("provider", ["searxng", "search_r1", "serper", "tavily", "brave"])
def test_a_search_shows_no_secret_of_its_provider(walk, monkeypatch, provider, form, state):
    for name in ("SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_API_KEY"):
        monkeypatch.setenv(name, AS_KEY.get(form, CANARY))
    with http_server(state) as url, redis_server(state) as redis:
        given = [f"base_url={FORMS[form](url)}", f"shared_cache={of_redis(form, redis)}", "mode=record", "recording=r.sqlite", "attempts=1"]
        walk(main, "search", "query", "panda", "--provider", provider, *(f"--set={each}" for each in given))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", MOST_FORMS)
def test_the_doctor_shows_no_secret(walk, monkeypatch, form, state):
    keys(monkeypatch, form)
    with http_server(state) as url, redis_server(state) as redis:
        monkeypatch.setenv("REDIS_URL", of_redis(form, redis))
        monkeypatch.setenv("CODE_SANDBOX_URL", FORMS[form](url))
        monkeypatch.setenv("LLM_AS_A_JUDGE_BASE", FORMS[form](f"{url}/v1"))
        walk(main, "doctor", "--judge-model", "m")


@pytest.mark.parametrize("form", MOST_FORMS)
def test_a_plan_shows_no_secret(walk, monkeypatch, form):
    keys(monkeypatch, form)
    monkeypatch.setenv("CODE_SANDBOX_URL", FORMS[form]("http://10.0.0.1:8000"))
    monkeypatch.setenv("LLM_AS_A_JUDGE_BASE", FORMS[form]("http://10.0.0.1:18901/v1"))
    walk(main, "plan", "qwen2_5_vl_7b", f"run.env={{HTTPS_PROXY: '{FORMS[form]('http://10.0.0.1:3128')}'}}")
    walk(main, "plan", "qwen2_5_vl_7b", f"run.env={{WANDB_API_KEY: {CANARY}}}")


def test_a_cold_start_takes_no_secret_and_writes_none(walk, tmp_path):
    ended, _ = walk(cold_start_main, "--dry-run", "--show-recipe", f"hf_hub_token={CANARY}")
    assert "a secret does not stand in a recipe" in ended
    facts = RunFacts(content_sha256="", num_conversations=1, num_processes=1)
    settings = {"stage": "sft", "ray_storage_path": f"http://user:{CANARY}@host/x"}
    (tmp_path / "out").mkdir()
    record(tmp_path / "out", settings, facts)
    assert not [path for path in (tmp_path / "out").iterdir() if PART in path.read_text()]
    assert differences(tmp_path / "out", settings, facts) == []


@pytest.mark.parametrize("state", ["down", "refuses", "works"])
@pytest.mark.parametrize("form", ["login", "login with a stroke", "query"])
async def test_a_redis_is_named_without_its_password(tmp_path, caplog, form, state):
    with redis_server(state) as url:
        said = []
        try:
            cache = open_cache(of_redis(form, url))
            await cache.get("k")
            await cache.put("k", {})
            await cache.aclose()
        except ValueError as error:
            said.append(str(error))
        try:
            store = SessionStore(of_redis(form, url))
            try:
                await store.ping()
            finally:
                await store.aclose()
        except (OSError, ValueError, RuntimeError) as error:
            said.append(str(error))
    assert PART not in "".join([*said, caplog.text])


@pytest.mark.parametrize("state", ["down", "refuses"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_sandbox_is_named_without_its_password_and_token(form, state):
    with http_server(state) as url, pytest.raises((SandboxError, ValueError)) as error:
        async with SandboxClient(FORMS[form](url), wait_s=0.1, token=AS_KEY.get(form, CANARY)) as client:
            await client.open()
    assert PART not in str(error.value)
    assert LOGIN not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://judge:hunter2@host:18901/v1", "http://***@host:18901/v1"),
        ("redis://:p@ss@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:a/b@host:6379/0", "redis://***@host:6379/0"),
        ("a http://u:hunter2@one/v1,http://u:hunter2@two/v1", "a http://***@one/v1,http://***@two/v1"),
        ("http://one:8000/v1,http://u:hunter2@two/v1", "http://one:8000/v1,http://***@two/v1"),
        ("http://host/v1?to=me@example.org", "http://host/v1?to=me@example.org"),
        ("https://host/v1?api-version=2&subscription-key=hunter2#x", "https://host/v1?api-version=2&subscription-key=***#x"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("`Authorization: Bearer …`", "`Authorization: Bearer …`"),
        (f"Basic {LOGIN} of Basic mathematics", "Basic *** of Basic mathematics"),
        ("https://medium.com/@user/p and me@example.org", "https://medium.com/@user/p and me@example.org"),
        ("sent x-api-key: 9f8e7d6c5b4a", "sent x-api-key: ***"),
        ('{"api_key": "9f8e7d6c5b4a", "model": "m"}', '{"api_key": "***", "model": "m"}'),
        ("Incorrect API key provided: sk-proj-" + "aB3_" * 12 + ". You can", "Incorrect API key provided: ***. You can"),
        ("OPENAI_API_KEY=abcd1234efgh deepeyes chat", "OPENAI_API_KEY=*** deepeyes chat"),
        ("hf_" + "AbCd" * 8 + ", ghp_" + "aB3d" * 9 + " and AKIAABCDEFGHIJKLMNOP", "***, *** and ***"),
        ("Cookie: session_token=eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", "Cookie: session_token=***"),
        ("api_key: Field required; max_tokens: 4096000000, key: agent.max_turns2", "api_key: Field required; max_tokens: 4096000000, key: agent.max_turns2"),
        ("risk-assessment-of-everything-2024 and task-1234567890123456789", "risk-assessment-of-everything-2024 and task-1234567890123456789"),
    ],
)
def test_a_secret_in_a_text_is_hidden_and_what_is_none_stays(text, shown):
    assert redacted(text) == shown
    nested = {"agent": {"judge": {"base_urls": [text, (text,)]}, "max_turns": 4}}
    assert redacted(nested) == {"agent": {"judge": {"base_urls": [shown, (shown,)]}, "max_turns": 4}}


def test_a_value_is_hidden_by_its_name_and_a_tokenizers_words_are_not():
    given = {"api_key": "x", "WANDB_API_KEY": "x", "hf_hub_token": "x", "max_tokens": "8", "pad_token": "<pad>", "key": "x", "token": None}
    assert redacted(given) == given | {"api_key": "***", "WANDB_API_KEY": "***", "hf_hub_token": "***"}


def test_what_a_variable_of_the_environment_holds_is_hidden_wherever_it_is_said(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", f" {CANARY}\n")
    monkeypatch.setenv("OTHER_KEY", "EMPTY")
    monkeypatch.setenv("SOME_URL", "http://user:hunter2-and-3@host")
    assert redacted(f"it says {CANARY}, EMPTY and hunter2-and-3") == "it says ***, EMPTY and ***"
    assert secrets_of("http://u:p%2Fw@h/?token=abc") == ("p/w", "p%2Fw", "dTpwL3c=", "abc")


def test_a_key_loses_its_line_end_and_one_of_two_lines_is_refused_unseen():
    assert clean_key(f" {CANARY}\r\n", "MODEL_API_KEY") == CANARY
    with pytest.raises(ValueError, match="MODEL_API_KEY has 9 characters, and number 5 is a blank, a line break") as error:
        clean_key("abcd\nefgh", "MODEL_API_KEY")
    assert "abcd" not in str(error.value)
