"""vLLM on a CPU, for real: the judge's protocol, the policy's protocol, and weights after an update."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys

import httpx
import pytest

from agent.chat_formats import format_of_template
from agent.images import ImageFile
from agent.messages import Message
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.prompts import load_prompt
from agent.trajectory import read_rollouts
from deepeyes.quickstart.outcome import NEEDED
from evaluation.benchmarks import load_benchmark
from evaluation.runs.serve import serve
from judge.client import Judge, JudgeSettings
from judge.verdict import Outcome
from reinforcement_learning.checks.templates import difference
from serving.processes import ProgramFailed, free_port, judge_server, marked
from serving.vllm import serve_checkpoint
from tests.conftest import ROOT, png
from tests.slow.conftest import killable_judge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


@pytest.fixture(scope="module")
def server(quickstart, tmp_path_factory):
    """The tiny model behind `judge/serve.sh`."""
    with marked(), judge_server(tmp_path_factory.mktemp("vllm"), quickstart.directory / "models/rl") as url:
        yield url


def test_a_judge_on_a_port_in_use_says_so_before_loading_anything(server):
    port = server.split(":")[2].split("/")[0]
    settings = os.environ | {"PORT": port, "DEVICE": "cpu"}
    result = subprocess.run(
        ["bash", "judge/serve.sh", "x"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=10, check=False
    )
    assert result.returncode == 1
    assert f"port {port} is in use" in result.stderr


async def test_the_judge_protocol_is_served_with_structured_output(server):
    judge = Judge(JudgeSettings(base_urls=(server,)))
    await judge.ping()
    verdict = await judge.judge("crimson", "red", question="What colour?")
    assert verdict.outcome in (Outcome.CORRECT, Outcome.INCORRECT)
    assert verdict.raw_reply in ("CORRECT", "INCORRECT")
    await judge.aclose()


async def test_with_one_judge_of_two_killed_answers_are_still_judged(server, tmp_path):
    port = free_port()
    with killable_judge(port, tmp_path / "judge.log"):
        judge = Judge(JudgeSettings(base_urls=(f"http://127.0.0.1:{port}/v1", server)))
        for _ in range(100):
            with contextlib.suppress(ConnectionError):
                await judge.ping()
                break
            await asyncio.sleep(0.1)
        before = await asyncio.gather(*(judge.judge(f"crimson {n}", "red", question="q") for n in range(8)))
    after = await asyncio.gather(*(judge.judge(f"scarlet {n}", "red", question="q") for n in range(8)))
    assert all(verdict.outcome is not Outcome.UNDECIDED for verdict in (*before, *after))
    await judge.aclose()


@pytest.fixture
def question(quickstart, tmp_path):
    """(path of an image, text, messages) of a held-out question whose mark is too small to be read at once."""
    held_out = load_benchmark("families").load(quickstart.directory / "data/benchmark.tsv")
    item = next(item for item in held_out if item.category == NEEDED)
    (image,) = item.read_images()
    path = tmp_path / "board.png"
    path.write_bytes(image.data)
    prompt = load_prompt("tiles")
    user = Message("user", "<image>\n" + prompt.question(item.question), (image,))
    return path, item.question, [Message("system", prompt.system), user]


async def test_the_stop_string_comes_back_and_a_primer_is_continued(server, question):
    client = ChatClient(ChatSettings(base_url=server, model="judge"))
    policy = ChatPolicy(client, max_reply_tokens=112, primer="<think>")
    first = await policy.reply(question[2])
    assert first.text.endswith("</code>")
    assert first.text.startswith("<think>")
    second = await policy.reply([Message("user", "Code execution result:\n<image>", (ImageFile(png(112, 112)),))])
    assert second.primer == "<think>"
    assert not second.text.startswith("<think>")
    assert second.num_tokens > 0
    await client.aclose()


async def test_a_streamed_reply_equals_one_that_is_not_and_its_tokens_can_be_recorded(server, question):
    pieces = []
    client = ChatClient(ChatSettings(base_url=server, model="judge", record_tokens=True))
    assert await client.models() == ["judge"]
    streamed = await ChatPolicy(client, max_reply_tokens=112, primer="", on_text=pieces.append).reply(question[2])
    whole = await ChatPolicy(client, max_reply_tokens=112, primer="").reply(question[2])
    assert len(pieces) > 5
    assert streamed.text == whole.text == "".join(pieces)
    assert streamed.num_tokens == whole.num_tokens == len(whole.token_ids) == len(whole.logprobs)
    assert streamed.num_prompt_tokens == whole.num_prompt_tokens > 0
    assert all(value <= 0 for value in whole.logprobs)
    await client.aclose()


def test_chat_talks_with_a_real_model_and_a_real_sandbox(server, sandbox_url, question, tmp_path):
    command = [
        sys.executable,
        "-m",
        "deepeyes.cli",
        "chat",
        "--image",
        str(question[0]),
        "--base-url",
        server,
        "--sandbox-urls",
        sandbox_url,
    ]
    command += ["--prompt", "tiles", "--max-reply-tokens", "112", "--out", str(tmp_path / "run"), question[1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    (record,) = read_rollouts(tmp_path / "run")
    assert not record.episode.failed, done.stderr
    assert record.episode.calls("python") >= 1
    assert "Code execution result:" in done.stdout
    assert f"({record.episode.stop_reason.value}, {len(record.episode.turns)} turns" in done.stdout


def test_a_folder_that_is_no_model_is_refused_at_once(tmp_path):
    with pytest.raises(ProgramFailed, match=r"no config\.json"), serve_checkpoint(tmp_path, log=tmp_path / "log", cpu=True):
        pass


def test_a_checkpoint_is_read_with_its_familys_template_and_keeps_the_thoughts_that_its_own_would_drop(tiny, tmp_path):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny("qwen3_vl"), tmp_path / "model")
    talk = format_of_template("qwen3_vl")
    kept, dropped = "{% elif 'text' in part %}{{ part['text'] }}", "{{ part['text'].split('</think>')[-1] }}"
    own = talk.chat_template.replace(kept, kept.replace("{{ part['text'] }}", dropped))
    assert "where rollouts have '<think>" in difference(own, talk)
    (folder / "chat_template.jinja").write_text(own)
    said = ["What is this?", "Small.</think>I look closer.", "Here is a crop."]
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in zip(roles, said, strict=True)]
    with marked(), serve(folder, log=tmp_path / "vllm.log", cpu=True) as url:
        asked = {"model": "policy", "messages": messages, "add_generation_prompt": True}
        reply = httpx.post(f"{url.removesuffix('/v1')}/tokenize", json=asked, timeout=60).raise_for_status().json()
    text = talk.opening([("user", said[0])]) + talk.primer + said[1] + talk.reply_end
    text += talk.after_reply([("user", said[2])]) + talk.primer
    assert reply["tokens"] == AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]


RELOAD = """
import os, sys
os.environ.update(TORCH_COMPILE_DISABLE="1", VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1", VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="reinforcement_learning.verl_adapter.plugin")
import torch
from vllm import LLM, SamplingParams
from transformers import Qwen2_5_VLForConditionalGeneration
path = sys.argv[1]
engine = LLM(path, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4, distributed_executor_backend="uni", enable_prefix_caching=False, limit_mm_per_prompt={"image": 1, "video": 0})
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
torch.manual_seed(0)
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.05 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0
ids = list(range(20, 60))
with torch.no_grad():
    logprobs = model(input_ids=torch.tensor([ids])).logits.log_softmax(-1)[0, :-1]
expected = logprobs.gather(1, torch.tensor(ids)[1:, None])[:, 0]
runner = engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
def found():
    engine.reset_prefix_cache()
    (output,) = engine.generate([{"prompt_token_ids": ids}], SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    return torch.tensor([entry[token].logprob for token, entry in zip(ids[1:], output.prompt_logprobs[1:])])
runner.reload_weights(weights_iterator=iter([(name, tensor.clone()) for name, tensor in model.state_dict().items() if name != "lm_head.weight"]), is_checkpoint_format=True)
stale = float((found() - expected).abs().max())
from reinforcement_learning.verl_adapter.cpu_vllm import refresh_tied_heads
heads = refresh_tied_heads(runner.get_model())
fresh = float((found() - expected).abs().max())
print("RESULT", heads, stale, fresh)
"""


def test_the_tied_head_follows_the_new_weights(quickstart):
    """Trained and perturbed weights: a random model is near uniform and would hide a stale head."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RELOAD, str(quickstart.directory / "models/rl")], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "RESULT" in result.stdout, result.stderr[-3000:]
    heads, stale, fresh = result.stdout.split("RESULT")[1].split()
    assert int(heads) == 1
    assert float(stale) > 1e-2, "vLLM refreshes tied heads by itself now: remove refresh_tied_heads"
    assert float(fresh) < 1e-3


def test_the_smoke_suite_runs_with_the_tiny_model_behind_real_vllm(server, tmp_path):
    command = ["bash", "evaluation/run_benchmarks.sh", "--suite", "smoke", "--out", str(tmp_path / "smoke"), "--limit", "2"]
    command += [
        "--model",
        "judge",
        "--base-url",
        server,
        "--max-reply-tokens",
        "48",
        "--max-turns",
        "2",
        "--max-episodes",
        "8",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    paths = list((tmp_path / "smoke").glob("*/scores.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert len(paths) == 23
    assert len(rows) == 46
    assert {row["decided_by"] for row in rows} & {"failed", "not_run"} == set()
    assert sum(row["reply_tokens"] > 0 for row in rows) > 40
    assert sum(row["prompt_tokens"] > 0 for row in rows) > 40
