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


_WORDS = (
    "dog",
    "cat",
    "house",
    "river",
    "stone",
    "apple",
    "table",
    "chair",
    "window",
    "street",
    "flower",
    "garden",
    "market",
)
_HOSTILE = {
    "open fractions": "\\frac{" * 60 + "1" + "}{2}" * 20,
    "a tower of powers": "9^{9^{9^{9^{9}}}}",
    "a large factorial": "99999999!",
    "brackets": "(" * 500 + "1" + ")" * 400,
    "nested roots": "\\sqrt{" * 40 + "2" + "}" * 40,
    "a million spaces": " " * 1_000_000 + "x",
    "a list": "1, " * 300,
}


def _plain_pair(rng: random.Random) -> tuple[str, str]:
    """(answer, gold): a number, a letter or some words, half of them right, hardly ever the same twice."""
    kind, right = rng.choice(["integer", "decimal", "unit", "letter", "words", "announced"]), rng.random() < 0.5
    number = rng.randrange(10**6)
    if kind == "letter":
        return rng.choice("ABCD"), rng.choice("ABCD")
    if kind == "words":
        gold = " ".join(rng.choice(_WORDS) for _ in range(3)) + f" {number}"
        return gold.title() if right else rng.choice(_WORDS), gold
    if kind == "decimal":
        return f"{number / 997:.3f}", f"{(number + (not right) * 5000) / 997:.3f}"
    given, gold = (f"{number:,}", str(number)) if right else (str(number + 7), str(number))
    if kind == "unit":
        return f"{given} kg", f"{gold} kg"
    return (f"The answer is {given}.", gold) if kind == "announced" else (given, gold)


def _rules(count: int) -> None:
    rules, rng = Rules(), random.Random(0)
    pairs = [_plain_pair(rng) for _ in range(count)]
    for name, judged in (("each another", pairs), ("600 again and again", pairs[:600] * (count // 600))):
        started, decided = time.process_time(), 0
        for answer, gold in judged:
            decided += rules.judge(answer, gold).outcome is not Outcome.UNDECIDED
        took_s = time.process_time() - started
        share = decided / len(judged)
        print(f"rules alone, {name}: {len(judged) / took_s:,.0f} plain answers a second of one core; {share:.1%} decided")
    for name, hostile in _HOSTILE.items():
        started = time.perf_counter()
        for answer, gold in ((hostile, "\\frac{1}{2}"), ("\\frac{1}{2}", hostile), (hostile, "5")):
            rules.judge(answer, gold, question=hostile)
        print(f"hostile, {name} ({len(hostile):,} characters): {(time.perf_counter() - started) / 3:.4f} s a verdict")


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
