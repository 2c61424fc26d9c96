"""What judging costs: many verdicts against a simulated judge, with and without faults, from the cache, and by rules alone.

    python -m benchmarks.judge_throughput

The simulated judge is an HTTP server in a process of its own, on loopback. It takes a second for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from judge.client import Judge, JudgeSettings
from judge.rules import Rules
from judge.verdict import Outcome
from serving.processes import free_port


class _App:
    """Answers chat completions after a second; a share of them with a fault."""

    def __init__(self, latency_s: float, fault_frac: float) -> None:
        self._latency_s = latency_s
        self._fault_frac = fault_frac
        self._rng = random.Random(0)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            continue
        if scope["path"].endswith("/chat/completions"):
            await asyncio.sleep(self._latency_s)
        status, body = 200, b'{"choices": [{"message": {"content": "CORRECT"}}], "usage": {"total_tokens": 300}}'
        if self._rng.random() < self._fault_frac:
            status, body = self._rng.choice(
                [(500, b""), (503, b""), (429, b""), (200, b'{"choices": [{"message": {"content": "hm"}}]}')]
            )
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-length", str(len(body)).encode())]}
        )
        await send({"type": "http.response.body", "body": body})


def _serve(port: int, latency_s: float, fault_frac: float) -> None:
    uvicorn.run(_App(latency_s, fault_frac), port=port, log_level="error", lifespan="off")  # type: ignore[arg-type]


async def _all(settings: JudgeSettings, count: int) -> tuple[float, Counter[Outcome]]:
    """(seconds, outcomes)."""
    judge = Judge(settings)
    started = time.perf_counter()
    asked = (judge.judge(f"it looks crimson {number}", "red", question="What colour is it?") for number in range(count))
    verdicts = await asyncio.gather(*asked)
    took_s = time.perf_counter() - started
    await judge.aclose()
    return took_s, Counter(verdict.outcome for verdict in verdicts)


async def _measure(count: int, slots: int, latency_s: float, folder: Path) -> None:
    limit_s = count / slots * latency_s
    for name, fault_frac in (("no faults", 0.0), ("5 % faults", 0.05)):
        port = free_port()
        server = multiprocessing.Process(target=_serve, args=(port, latency_s, fault_frac), daemon=True)
        server.start()
        for _ in range(100):
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.1)
        url = f"http://127.0.0.1:{port}/v1"
        settings = JudgeSettings(base_urls=(url,), max_in_flight=slots, cache=str(folder / f"{port}.sqlite"), attempts=8)
        took_s, outcomes = await _all(settings, count)
        print(f"{count:,} verdicts, {name}: {took_s:.1f} s, limit {limit_s:.1f} s; {dict(outcomes)}")
        took_s, outcomes = await _all(settings, count)
        print(f"{count:,} verdicts from the cache: {took_s:.2f} s; {dict(outcomes)}")
        server.terminate()
        server.join()


def _rules(count: int) -> None:
    rules = Rules()
    pairs = [("B", "B"), ("(C) a dog", "C"), ("12", "12"), ("a red car", "red car"), ("it is crimson", "red"), ("3.5", "4")]
    started = time.perf_counter()
    for number in range(count):
        rules.judge(*pairs[number % len(pairs)])
    print(f"rules alone: {count / (time.perf_counter() - started):,.0f} plain verdicts a second")
    hostile = "\\frac{" * 60 + "1" + "}{2}" * 20
    started = time.perf_counter()
    rules.judge(hostile, "\\frac{1}{2}")
    print(f"a hostile LaTeX answer of {len(hostile)} characters: {time.perf_counter() - started:.2f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--latency-s", type=float, default=1.0)
    options = parser.parse_args()
    _rules(60_000)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(options.verdicts, options.slots, options.latency_s, Path(folder)))


if __name__ == "__main__":
    main()
