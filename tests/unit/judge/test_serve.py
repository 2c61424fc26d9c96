"""judge/serve.sh around a stand-in for vLLM; the real one is started in tests/slow/test_vllm.py."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from serving.processes import free_port
from tests.conftest import ROOT

STAND_IN = """#!{python}
import http.server, os, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
print("arguments", *sys.argv[1:], flush=True)
print("VLLM_API_KEY", os.environ.get("VLLM_API_KEY", ""), "|", flush=True)
if "fails" in sys.argv:
    sys.exit(7)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.time() > {ready_at} else 503)
        self.end_headers()
    def log_message(self, *_): ...
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def serve(tmp_path, *arguments, **settings):
    (tmp_path / "vllm").write_text(STAND_IN.format(python=sys.executable, ready_at=time.time() + 1.0))
    (tmp_path / "vllm").chmod(0o755)
    port = free_port()
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": str(port)} | settings
    log = (tmp_path / "log").open("w")
    return (
        subprocess.Popen(
            ["bash", "judge/serve.sh", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
        ),
        port,
        log,
    )


def ended(process, log):
    process.terminate()
    process.wait(10)
    log.close()


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("Qwen/Qwen3-8B", "--default-chat-template-kwargs {\"enable_thinking\": false, \"thinking\": false}"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "--reasoning-parser qwen3"), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "--reasoning-parser deepseek_r1"),
        ("openai/gpt-oss-20b", "--reasoning-parser openai_gptoss"), ("Qwen/QwQ-32B", "--reasoning-parser deepseek_r1"),
        ("some/folder", "--default-chat-template-kwargs"),
    ],
)  # fmt: skip
def test_a_model_that_can_do_without_thinking_is_told_to_and_one_that_cannot_gets_its_parser(tmp_path, model, flags):
    process, _, log = serve(tmp_path, model, TENSOR_PARALLEL="1")
    try:
        text = read(tmp_path, "arguments serve")
        assert flags in text
        assert ("--reasoning-parser" in text) is ("--reasoning-parser" in flags)
        assert ("enable_thinking" in text) is ("kwargs" in flags)
    finally:
        ended(process, log)


def test_a_model_may_think_if_it_is_let(tmp_path):
    process, _, log = serve(tmp_path, "Qwen/Qwen3-8B", THINKING="1")
    try:
        assert "enable_thinking" not in read(tmp_path, "arguments serve")
    finally:
        ended(process, log)


@pytest.mark.parametrize(
    ("settings", "said", "unsaid"),
    [
        ({}, ["--host 127.0.0.1", "http://127.0.0.1:{port}/v1", "started with BIND=0.0.0.0"], ["key", "may use the judge"]),
        ({"BIND": "0.0.0.0"}, ["--host 0.0.0.0", "may use the judge: set JUDGE_API_KEY", "http://{hostname}:{port}/v1"], ["127.0.0.1:"]),
        ({"BIND": "0.0.0.0", "JUDGE_API_KEY": "key-one\n"}, ["--host 0.0.0.0", "VLLM_API_KEY key-one |"], ["may use the judge", "--api-key"]),
        ({"HOST": "x86_64-conda-linux-gnu"}, ["--host 127.0.0.1"], ["conda"]),
    ],
)  # fmt: skip
def test_it_listens_on_loopback_unless_told_and_then_with_a_key_if_there_is_one(tmp_path, settings, said, unsaid):
    process, port, log = serve(tmp_path, "m", **settings)
    try:
        text = read(tmp_path, "the judge is ready").replace("VLLM_API_KEY |", "")
        for words in said:
            assert words.format(port=port, hostname=socket.gethostname()) in text
        assert not [words for words in unsaid if words in text]
    finally:
        ended(process, log)


def read(tmp_path, until, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while until not in (text := (tmp_path / "log").read_text()):
        assert time.monotonic() < end, text
        time.sleep(0.05)
    return text


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([], {}, "serve Qwen/Qwen2.5-72B-Instruct --port {port} --served-model-name judge --max-model-len 32768 --tensor-parallel-size 8"),
        (["Qwen/Qwen3-8B"], {"TENSOR_PARALLEL": "1"}, "serve Qwen/Qwen3-8B --port {port} --served-model-name judge"),
        (["m", "--max-num-seqs", "4"], {"DEVICE": "cpu"}, "--dtype float32 --enforce-eager --distributed-executor-backend uni --max-num-seqs 4"),
    ],
)  # fmt: skip
def test_the_judge_is_started_with_the_right_flags_and_says_when_it_is_ready(tmp_path, arguments, settings, said):
    process, port, log = serve(tmp_path, *arguments, **settings)
    try:
        text = read(tmp_path, "the judge is ready: export LLM_AS_A_JUDGE_BASE=http://")
        assert said.format(port=port) in text
        assert f":{port}/v1" in text
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def test_a_server_that_does_not_start_ends_with_its_own_status_and_leaves_no_watcher(tmp_path):
    process, port, log = serve(tmp_path, "m", "fails")
    assert process.wait(20) == 7
    log.close()
    time.sleep(1.2)
    assert "ready" not in (tmp_path / "log").read_text()
    assert not [other for other in psutil.process_iter() if port_of(other) == str(port)]


def port_of(process):
    """PORT in a process's environment; None if it cannot be read."""
    try:
        return process.environ().get("PORT")
    except psutil.Error:
        return None
