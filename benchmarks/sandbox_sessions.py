"""How long a session takes to open and a cell to run: both back-ends of our server over HTTP beside a bare ipykernel.

    python -m benchmarks.sandbox_sessions [--rounds 40]

Starts its own Redis and sandbox on loopback; load generator and servers share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy
from jupyter_client.manager import AsyncKernelManager
from PIL import Image

from code_sandbox.client import SandboxClient, SandboxSession
from scripts.processes import marked, redis_server, sandbox_server

_CROP = "import matplotlib.pyplot as plt\nplt.imshow(image_1.crop((100, 100, 600, 500)))\nplt.show()"
_WARM_UP = 3


def photo(width_px: int = 2048, height_px: int = 1536) -> bytes:
    """A JPEG of about 3 MP with structure, so that encoding costs what a photograph costs."""
    rng = numpy.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=numpy.uint8))
    buffer = io.BytesIO()
    coarse.resize((width_px, height_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


async def timed(call: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Milliseconds of each call after a short warm-up."""
    times = []
    for number in range(rounds + _WARM_UP):
        started = time.perf_counter()
        await call()
        if number >= _WARM_UP:
            times.append(1000 * (time.perf_counter() - started))
    return times


def row(name: str, times: list[float]) -> str:
    """One line of the table."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"| {name} | {statistics.median(ordered):.1f} | {p99:.1f} | {len(ordered)} |"


async def ours(url: str, rounds: int, image: bytes, name: str) -> list[str]:
    """One back-end of our server, one client."""
    lines = []
    async with SandboxClient(url) as client:
        opened: list[SandboxSession] = []

        async def open_one() -> None:
            opened.append(await client.open([image]))

        times = await timed(open_one, rounds)
        lines.append(row(f"{name}: open a session with a 3 MP image", times))
        session = opened[0]
        lines.append(row(f"{name}: no-op cell", await timed(lambda: session.execute("1"), rounds)))
        lines.append(row(f"{name}: crop the image and plt.show() it", await timed(lambda: session.execute(_CROP), rounds)))
        for other in opened:
            await other.close()

        async def whole() -> None:
            each = await client.open([image])
            await each.execute("image_1.crop((0, 0, 112, 112))")
            await each.close()

        started = time.perf_counter()
        await asyncio.gather(*(whole() for _ in range(rounds)))
        elapsed = time.perf_counter() - started
        lines.append(
            f"| {name}: {rounds} sessions at once, open, crop, close; ms each | {1000 * elapsed / rounds:.1f} | | {rounds} |"
        )
    return lines


async def bare(rounds: int) -> list[str]:
    """A plain ipykernel through jupyter_client, as most servers start one."""
    managers: list[AsyncKernelManager] = []
    clients = []

    async def start() -> None:
        manager = AsyncKernelManager()
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        managers.append(manager)
        clients.append(client)

    starts = max(3, rounds // 10)
    lines = [row("bare ipykernel: start", await timed(start, starts))]

    async def execute(code: str) -> None:
        await clients[0].execute_interactive(code, output_hook=lambda _: None, timeout=60)

    lines.append(row("bare ipykernel: no-op cell", await timed(lambda: execute("1"), rounds)))
    for client, manager in zip(clients, managers, strict=True):
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    return lines


@contextlib.contextmanager
def server(backend: str) -> Iterator[str]:
    """Redis and a sandbox of our own."""
    with tempfile.TemporaryDirectory() as directory, marked(), redis_server(Path(directory)) as redis_url:
        arguments = ("--backend", backend, "--require-level", "0")
        with sandbox_server(Path(directory), redis_url, arguments=arguments) as url:
            yield url


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Sandbox sessions beside a bare ipykernel.")
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    image = photo()
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, image of {len(image):,} bytes\n")
    print("| | p50 ms | p99 ms | n |\n| --- | --: | --: | --: |")
    for backend in ("fork", "jupyter"):
        with server(backend) as url:
            print("\n".join(asyncio.run(ours(url, rounds, image, backend))))
    print("\n".join(asyncio.run(bare(rounds))))


if __name__ == "__main__":
    main()
