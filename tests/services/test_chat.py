"""`deepeyes chat` against a real streaming server, a real sandbox and a real index, as a new user would run it."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.trajectory import read_rollouts
from tests.conftest import ROOT, png

pytestmark = pytest.mark.services
CALL = '<think>who?</think>\n<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
CODE = "<think>I look closer.</think>\n<code>\n```python\nprint(image_1.size)\nimage_1.crop((0, 0, 40, 40))\n```\n</code>"
SCRIPT = [
    CODE,
    CALL % ("search", '{"query": "red panda"}'),
    CALL % ("fetch_page", '{"result": 1}'),
    "<answer>Himalaya</answer>",
]


@contextmanager
def streaming_server(script):
    """Speaks the OpenAI API with server-sent events; reply n is the n-th of the script."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(json.dumps({"data": [{"id": "the-model"}]}).encode(), "application/json")

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            text = script[sum(message["role"] == "user" for message in body["messages"]) - 1]
            events = [{"choices": [{"delta": {"content": text[i : i + 7]}}]} for i in range(0, len(text), 7)]
            events += [
                {"choices": [{"delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"completion_tokens": 9}},
            ]
            self.answer(
                "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n",
                "text/event-stream",
            )

        def answer(self, payload, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_): ...

    bodies = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    server.shutdown()
    server.server_close()
    thread.join()


def chat(*arguments, **environment):
    command = [sys.executable, "-m", "deepeyes.cli", "chat", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"COLUMNS": "120"} | environment,
    )


def test_a_question_is_answered_with_code_search_and_pages_and_everything_is_shown_and_recorded(tmp_path, sandbox_url):
    (tmp_path / "photo.png").write_bytes(png(80, 60))
    page = {"title": "Red panda", "text": "It lives in the Himalaya. " + "More. " * 100, "link": "p:1"}
    (tmp_path / "pages.jsonl").write_text(json.dumps(page))
    with streaming_server(SCRIPT) as (url, bodies):
        done = chat(
            "--image", tmp_path / "photo.png", "--base-url", url, "--sandbox-urls", sandbox_url, "--tools",
            "python,search,fetch_page", "--search", f"{{provider: local, path: {tmp_path / 'pages.jsonl'}}}", "--out", tmp_path / "run", "Where does this live?",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for shown in (
        "I look closer.",
        "(80, 60)",
        "image of 40x40 px",
        "A Google search for 'red panda' found 1 results",
        "# Red panda",
    ):
        assert shown in done.stdout
    assert done.stdout.rstrip().splitlines()[-2] == "Himalaya"
    assert "answered, 4 turns, 36 tokens" in done.stdout
    assert bodies[0]["model"] == "the-model"
    assert "- fetch_page: opens a page" in bodies[0]["messages"][0]["content"]
    (record,) = read_rollouts(tmp_path / "run")
    assert record.episode.answer == "Himalaya"
    assert [turn.tool_error for turn in record.episode.turns] == [""] * 4
    assert len(list((tmp_path / "run/shown").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "none.png", "q"], "No such file"),
        (["--image", "README.md", "q"], "README.md cannot be used"),
        (["--search", "serper", "q"], "set SERPER_API_KEY"),
        (["--search", "bing", "q"], "no 'bing' in agent.search.providers; there are: brave"),
        (["--prompt", "none", "q"], "no prompt 'none'; there are: deepeyesv2"),
        (["--base-url", "http://127.0.0.1:9/v1", "q"], "is the server up?"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, said):
    done = chat(*arguments, SERPER_API_KEY="")
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_sandbox_the_chat_says_what_to_start():
    with streaming_server([CODE]) as (url, _):
        done = chat("--base-url", url, "--sandbox-urls", "http://127.0.0.1:9", "q")
    assert done.returncode == 1
    assert "sandbox" in done.stderr
