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


def chat(*arguments, stdin="", **environment):
    command = [sys.executable, "-m", "deepeyes.cli", "chat", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        input=stdin,
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
        "image of 56x56 px",
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
    assert done.returncode in (2, 4)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_sandbox_one_line_says_what_to_start_and_how_to_do_without():
    with streaming_server([CODE]) as (url, _):
        missing = chat("--base-url", url, "--sandbox-urls", "http://127.0.0.1:9", "q")
        another = chat("--base-url", url, "--sandbox-urls", url, "q")  # a server, but no sandbox
        without = chat("--base-url", url, "--tools", "", "--max-turns", "1", "q")
    for done in (missing, another):
        assert done.returncode == 4
        assert len(done.stderr.strip().splitlines()) == 1
        assert "deepeyes sandbox serve" in done.stderr
        assert "without Python: --tools ''" in done.stderr
    assert "max_turns" in without.stdout


def test_further_questions_follow_up_in_the_same_session_and_code_is_printed_once(tmp_path, sandbox_url):
    script = [
        "<think>I keep it.</think>\n<code>\n```python\nkept = 40 + 1\n```\n</code>",
        "<answer>41 is kept</answer>",
        "I show it.</think>\n<code>\n```python\nprint('now', kept + 1)\n```\n</code>",
        "so</think><answer>42</answer>",
    ]
    # An observation counts as the user's, so that the n-th request has n of them in one conversation.
    with streaming_server(script) as (url, bodies):
        done = chat(
            "--base-url", url, "--sandbox-urls", sandbox_url, "--tools", "python", "--temperature", "0.7", "--primer", "<think>",
            "--out", tmp_path / "run", "Keep 41.", "-", stdin="And one more?\n",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept = 40 + 1") == 1
    assert done.stdout.count("print('now', kept + 1)") == 1
    assert "now 42" in done.stdout
    assert done.stdout.rstrip().splitlines()[-2] == "42"
    assert {body["temperature"] for body in bodies} == {0.7}
    said = [message["content"] for message in bodies[2]["messages"]]
    assert "And one more?" in said[5]
    assert said[-1] == "<think>"
    assert "41 is kept" in said[4]
    first, second = read_rollouts(tmp_path / "run")
    assert (first.facts.question, second.facts.question) == ("Keep 41.", "And one more?")
    assert len(second.episode.opening) == 6
    assert len(second.episode.turns) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no question"),
        (["-"], "a question is empty"),
        (["-", "-"], "can be read only once"),
        (["--temperature", "-1", "q"], "expected 0 or more"),
        (["--dialect", "openai", "--primer", "<think>", "--tools", "", "--model", "m", "q"], "needs a vLLM server"),
    ],
)
def test_a_question_or_a_setting_that_cannot_be_is_said_in_words(arguments, said):
    done = chat(*arguments)
    assert done.returncode in (2, 4)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
