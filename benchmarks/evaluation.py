"""What evaluating costs beside the model: throughput against its limit, scoring by rules, and the report.

    python -m benchmarks.evaluation [--samples 2000]

The simulated model is an HTTP server in a process of its own on loopback, which takes a second for each request. The
sandbox is the real one, on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import json
import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, ToolCall
from agent.trajectory import TrajectoryWriter
from evaluation.benchmarks import Item, load_benchmark
from evaluation.reports.run_page import write_run_report
from evaluation.runs.ask import ModelServers, infer
from evaluation.runs.folder import facts_of, open_run
from evaluation.runs.provenance import Provenance, prompt_sha256, write_provenance
from evaluation.runs.score import score
from evaluation.runs.settings import EvaluationSettings
from evaluation.scoring.choices import grade_choice
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from judge.client import Judge, JudgeSettings
from serving import processes

_CODE = "<think>t</think>\n<code>\n```python\nprint(1)\n```\n</code>"
_ANSWER = "<think>t</think>\n<answer>B</answer>"


class _App:
    """Answers after a fixed time: code to an agent's first request, an answer to the second; `/direct` answers at once."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        agent, tail = False, b""
        while True:
            message = await receive()
            body = message.get("body", b"")
            # Large bodies are images: they are searched, never parsed, to keep the model's side cheap.
            agent = agent or b'"assistant"' in tail + body
            tail = body[-20:]
            if not message.get("more_body"):
                break
        if scope["path"].endswith("/chat/completions"):
            await asyncio.sleep(self._latency_s)
        text = _ANSWER if agent or "/direct/" in scope["path"] else _CODE
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        payload = json.dumps({"choices": [choice], "usage": {"completion_tokens": 20, "prompt_tokens": 800}}).encode()
        headers = [(b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": payload})


def _serve(port: int, latency_s: float) -> None:
    uvicorn.run(_App(latency_s), port=port, log_level="error", lifespan="off")  # type: ignore[arg-type]


@contextlib.contextmanager
def _model(latency_s: float) -> Iterator[str]:
    port = processes.free_port()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, latency_s), daemon=True)
    server.start()
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/")
            break
        time.sleep(0.1)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.join()


def _write_data(path: Path, count: int, *, size: tuple[int, int], distinct: int) -> None:
    """Multiple choice; every `distinct`-th row has an image of its own."""
    import base64

    draws = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "image", "question", "A", "B", "C", "D", "answer", "category"])
        for index in range(count):
            image = str(index - index % distinct)
            if index % distinct == 0:
                small = draws.integers(0, 255, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
                image = base64.b64encode(buffer.getvalue()).decode()
            writer.writerow([index, image, f"What is it? ({index})", "a cat", "a dog", "a cow", "a hen", "B", "x"])


def _settings(data: Path, mode: str, sandbox: str = "http://127.0.0.1:8000") -> EvaluationSettings:
    return EvaluationSettings(
        benchmark="vstar", data=str(data), model="m", prompt="deepeyesv2_code", tools=("python",), mode=mode,
        max_reply_tokens=64, sandbox_urls=(sandbox,),
    )  # type: ignore[arg-type]  # fmt: skip


async def _throughput(folder: Path, data: Path, name: str, mode: str, url: str, sandbox: str, slots: int) -> None:
    benchmark, settings = load_benchmark("vstar"), _settings(data, mode, sandbox)
    run = folder / f"{name} {mode}".replace(" ", "_")
    count = open_run(run, settings, benchmark, data)
    base = f"{url}/direct/v1" if mode == "think" else f"{url}/v1"
    turns = 1 if mode == "think" else 2
    cpu, started = time.process_time(), time.perf_counter()
    servers = ModelServers(base_urls=(base,), served_name="m", max_episodes=slots)
    await infer(run, benchmark.load(data), settings, servers)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    limit_s = count * turns / slots
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{name}, {mode}: {count:,} samples of {turns} requests in {took_s:.1f} s, limit {limit_s:.1f} s "
        f"({took_s / limit_s:.2f}x); {1000 * cpu_s / count:.1f} ms of CPU a sample; peak of this process so far {peak} MiB"
    )


def _scoring(folder: Path, count: int) -> None:
    choices = {"A": "a cat", "B": "a dog", "C": "a cow", "D": "a hen"}
    answers = [
        "B",
        "(B)",
        "The answer is C",
        "a dog",
        "between A and B",
        "I think that it must be a cow in the end",
        "Answer: B",
    ]
    grader = Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))

    async def grade_all() -> None:
        for number in range(count):
            await grade_choice(answers[number % len(answers)], "B", choices, grader, question="q", item_id="1")

    started = time.perf_counter()
    asyncio.run(grade_all())
    print(f"{count:,} multiple-choice answers by rules: {time.perf_counter() - started:.1f} s")
    run = _recorded(folder / "recorded", count, answers, choices)
    started = time.perf_counter()
    asyncio.run(score(run, load_benchmark("vstar"), grader))
    print(f"{count:,} recorded episodes read, graded, analysed and written: {time.perf_counter() - started:.1f} s")


def _recorded(run: Path, count: int, answers: list[str], choices: dict[str, str]) -> Path:
    """A run whose episodes are of two kinds, with code and without."""
    run.mkdir(parents=True)
    writer = TrajectoryWriter(run)
    opening = (Message("system", "s"), Message("user", "What is it?"))
    answer = Turn(reply=Reply(text=_ANSWER, finish="stop", num_tokens=20), action=FinalAnswer("B"))
    call = Turn(
        reply=Reply(text=_CODE, finish="stop", num_tokens=30),
        action=ToolCall("python", {"code": "x = image_1.crop((0, 0, 9, 9))\ndisplay(x)"}),
        observation=Message("user", "Code execution result:\nstdout:\n1"),
    )
    items = []
    for number in range(count):
        item = Item(
            item_id=str(number), question="q", gold="B", category=f"c{number % 5}", choices=choices, fields={"question": "q"}
        )
        items.append(item.to_json())
        turns = [call, answer] if number % 2 else [answer]
        said = answers[number % len(answers)]
        writer.write(Episode(opening=opening, turns=turns, end=StopReason.ANSWERED, answer=said), facts_of(item, "vstar"))
    (run / "items.jsonl").write_text("\n".join(items) + "\n")
    settings = _settings(Path("none.tsv"), "agent")
    write_provenance(run, Provenance(settings=settings, prompt_sha256=prompt_sha256(settings)))
    return run


def _report(folder: Path, count: int) -> None:
    answers = ["B", "(B)", "The answer is C", "a dog"]
    run = _recorded(folder / "report", count, answers, {"A": "a cat", "B": "a dog", "C": "a cow", "D": "a hen"})
    asyncio.run(score(run, load_benchmark("vstar"), Grader(load_profile("vlmevalkit"), Judge(JudgeSettings()))))
    started = time.perf_counter()
    write_run_report(run, run / "report.html")
    size = (run / "report.html").stat().st_size / 1e6
    print(f"report of {count:,} episodes: {time.perf_counter() - started:.1f} s, {size:.1f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, processes.marked():
        folder = Path(name)
        logging.getLogger("evaluation.runs.folder").setLevel(logging.ERROR)  # made data has another checksum
        _write_data(folder / "1mp.tsv", options.samples, size=(1152, 864), distinct=8)
        _write_data(folder / "4k.tsv", 256, size=(3840, 2160), distinct=1)
        with (
            processes.redis_server(folder) as redis_url,
            processes.sandbox_server(
                folder, redis_url, arguments=("--max-sessions", "128", "--require-level", "0")
            ) as sandbox,
            _model(1.0) as url,
        ):
            for label, data, mode in (
                ("4K images", "4k.tsv", "think"), ("1 megapixel", "1mp.tsv", "think"), ("1 megapixel", "1mp.tsv", "agent"),
            ):  # fmt: skip
                asyncio.run(_throughput(folder, folder / data, label, mode, url, sandbox, options.slots))
        _scoring(folder, 100_000)
        _report(folder, 20_000)


if __name__ == "__main__":
    main()
