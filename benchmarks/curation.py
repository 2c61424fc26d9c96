"""How near curation comes to what a model's latency allows, and what it asks for again after being killed.

    python -m benchmarks.curation [--prompts 10000] [--samples 8] [--latency-s 2.0] [--in-flight 360] [--kills 10]

A local HTTP server answers in the OpenAI form after a fixed time, to as many as ask, and counts what it was asked. Fewer
than `prompts x samples x latency / in-flight` seconds are impossible; each line says how much longer the step took, and how
busy the machine was meanwhile. Then the same work is killed (SIGKILL) at random moments and started again, and the server's
count tells what was repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from curation.folders import StepFolder
from curation.journal import entries
from serving.processes import free_port

_ROOT = Path(__file__).resolve().parent.parent


def _serve(port: int, latency_s: float, log: str) -> None:
    """Answer after a fixed time; each question that came is a line of the log."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                name = f"{body['messages'][-1]['content'].split('#')[1].split()[0]}:{body['seed']}"
                with open(log, "ab", buffering=0) as file:  # noqa: PTH123 - one short line
                    file.write(f"{name}\n".encode())
                await asyncio.sleep(latency_s)
                text = "<think>One.</think><answer>red</answer>"
                said = {
                    "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                    "usage": {"completion_tokens": 12, "prompt_tokens": 40},
                }
                payload = json.dumps(said).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
                )
                writer.write(payload)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


def _write_file(directory: Path, url: str, options: argparse.Namespace) -> Path:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "data_source": "tiles",
            "prompt": [{"role": "user", "content": f"What colour is number #{number} on the list?"}],
            "images": [],
            "reward_model": {"style": "rule", "ground_truth": "red"},
            "extra_info": {"index": f"i{number}", "question": f"What colour is number #{number} on the list?"},
        }
        for number in range(options.prompts)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).cast(_with_images(pyarrow)), directory / "in.parquet")
    content: dict[str, Any] = {
        "name": "bench",
        "store": str(directory / "store"),
        "run": str(directory / "run"),
        "sources": [{"name": "s", "path": str(directory / "in.parquet"), "licence": "none", "group": "g"}],
        "models": {"base": {"model": "m", "base_urls": [url], "max_in_flight": options.in_flight}},
        "steps": [{"sample": {"as": "plain", "with": "base", "mode": "think", "k": options.samples}}],
    }
    path = directory / "bench.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _with_images(pyarrow: Any) -> Any:
    text = pyarrow.string()
    return pyarrow.schema(
        [
            ("data_source", text),
            ("prompt", pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))),
            ("images", pyarrow.list_(text)),
            ("reward_model", pyarrow.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pyarrow.struct([("index", text), ("question", text)])),
        ]
    )


def _start(file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "curation.run", "run", str(file), "--workers", "1"]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL)


def _measure(options: argparse.Namespace, *, kills: int) -> dict[str, Any]:
    """One run to its end, killed so often on the way; what was asked, lost and repeated."""
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        directory, port = Path(folder), free_port()
        log = directory / "asked.log"
        log.touch()
        server = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(port, options.latency_s, str(log)), daemon=True
        )
        server.start()
        try:
            file = _write_file(directory, f"http://127.0.0.1:{port}/v1", options)
            total, killed, started = options.prompts * options.samples, 0, time.monotonic()
            marks = sorted(rng.uniform(0.02, 0.95) for _ in range(kills))
            process = _start(file)
            first, asked, end = 0.0, 0, 0
            while process.poll() is None:
                time.sleep(0.02)
                with log.open("rb") as lines:
                    lines.seek(end)
                    new = lines.read()
                asked, end = asked + new.count(b"\n"), end + len(new)
                first = first or (time.monotonic() if asked else 0.0)
                if killed < kills and asked >= marks[killed] * total:
                    time.sleep(rng.uniform(0, options.latency_s))
                    process.kill()
                    process.wait()
                    killed += 1
                    process = _start(file)
            if process.returncode:
                raise RuntimeError(f"the run ended with {process.returncode}")
            step = directory / "run" / "01_plain"
            answered = _journal_end(step) - first
            summary = StepFolder(step).summary() or {}
            counts = Counter(log.read_text().split())
            done = [entry["id"] for entry in entries(step / "journal") if entry["done"]]
            return {
                "wanted": total,
                "recorded": summary["notes"]["answers"].get("correct", 0),
                "recorded twice": len(done) - len(set(done)),
                "lost": total - len(set(done)),
                "kills": killed,
                "asked again": sum(counts.values()) - len(counts),
                "may be asked again": killed * options.in_flight,
                "limit_s": total * options.latency_s / options.in_flight,
                "asking_s": answered,
                "all_s": time.monotonic() - started,
                "load_average": os.getloadavg(),
            }
        finally:
            server.terminate()
            server.join()


def _journal_end(step: Path) -> float:
    """When the last answer was written, on the monotonic clock."""
    newest = max(path.stat().st_mtime for path in (step / "journal").glob("*.jsonl"))
    return newest - time.time() + time.monotonic()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--latency-s", type=float, default=2.0)
    parser.add_argument("--in-flight", type=int, default=360)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    limit_s = options.prompts * options.samples * options.latency_s / options.in_flight
    answers = f"{options.prompts * options.samples:,} answers of {options.latency_s:g} s each, {options.in_flight} at once"
    print(f"{answers}: at least {limit_s:.1f} s", flush=True)
    for kills in (0, options.kills):
        found = _measure(options, kills=kills)
        print(json.dumps(found | {"over_limit": round(found["asking_s"] / found["limit_s"] - 1, 4)}), flush=True)


if __name__ == "__main__":
    main()
