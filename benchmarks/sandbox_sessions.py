"""What a sandbox costs: our server with both back-ends, a bare ipykernel and, if given, other servers, in one run.

    python -m benchmarks.sandbox_sessions [--rounds 40] [--backend fork] [--peer-url http://host:port/jupyter_sandbox]

Starts its own Redis and sandboxes on loopback; load generator, servers and sessions share the machine. `--peer-url` takes
any server that speaks the routes of MultiModal-Jupyter-Sandbox, `/jupyter_sandbox` or `/run_jupyter`; its code runs there,
so only use a server that is yours.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import numpy
import psutil
from jupyter_client.manager import AsyncKernelManager
from PIL import Image

from code_sandbox.client import SandboxClient, SandboxSession
from serving.processes import marked, redis_server, sandbox_server

_CROP = "image_1.crop((100, 100, 1100, 900))"
_ENCODE = """
import io, time
picture, buffer = image_1.crop((100, 100, 1100, 900)), io.BytesIO()
started = time.perf_counter()
picture.save(buffer, "PNG", compress_level=1)
print(time.perf_counter() - started)
"""
_PLOT = "import matplotlib.pyplot as plt\nplt.imshow(image_1.crop((100, 100, 600, 500)))\nplt.show()"
_WARM_UP = 3
_CLIENTS = 8
_PAUSE_S = 0.02
_FLOOD_S = 5.0


def photo(width_px: int = 2048, height_px: int = 1536) -> bytes:
    """A JPEG of about 3 MP with structure, so that encoding costs what a photograph costs."""
    rng = numpy.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=numpy.uint8))
    buffer = io.BytesIO()
    coarse.resize((width_px, height_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


async def timed(call: Callable[[], Awaitable[object]], rounds: int, *, pause_s: float = 0.0) -> list[float]:
    """Milliseconds of each call after a short warm-up."""
    times = []
    for number in range(rounds + _WARM_UP):
        # Callers that all wake at the same moment would measure each other.
        await asyncio.sleep(pause_s * random.uniform(0.2, 1.8))
        started = time.perf_counter()
        await call()
        if number >= _WARM_UP:
            times.append(1000 * (time.perf_counter() - started))
    return times


def row(name: str, times: list[float]) -> str:
    """One line of the table, in milliseconds."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"| {name} | {statistics.median(ordered):.1f} | {p99:.1f} | {len(ordered)} |"


class RawConnection:
    """One kept HTTP connection to one session, sending no-op cells: as little client as possible beside the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self._reader, self._writer, self._head = reader, writer, head
        self._cells = 0

    @classmethod
    async def to_session(cls, url: str, session_id: str) -> RawConnection:
        """Connect."""
        host, port = url.removeprefix("http://").split(":")
        head = f"POST /v1/sessions/{session_id}/execute HTTP/1.1\r\nHost: {host}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: "
        return cls(*await asyncio.open_connection(host, int(port)), head)

    async def send(self) -> None:
        """Send one cell and wait for the whole answer."""
        body = f'{{"code": "1", "timeout_s": 30, "cell": {self._cells}}}'
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        self._cells += 1

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def many_clients(url: str, client: SandboxClient, rounds: int, name: str) -> list[str]:
    """No-op cells of several sessions at once: at the pace of agents, then as fast as they go."""
    sessions = [await client.open() for _ in range(_CLIENTS)]
    connections = [await RawConnection.to_session(url, session.session_id) for session in sessions]
    paced = await asyncio.gather(*(timed(each.send, rounds, pause_s=_PAUSE_S) for each in connections))
    lines = [
        row(f"{name}: no-op cell, {_CLIENTS} clients that pause {1000 * _PAUSE_S:.0f} ms", list(itertools.chain(*paced)))
    ]
    deadline, counts = time.perf_counter() + _FLOOD_S, [0] * _CLIENTS
    times = []

    async def flood(number: int) -> None:
        while (started := time.perf_counter()) < deadline:
            await connections[number].send()
            times.append(1000 * (time.perf_counter() - started))
            counts[number] += 1

    await asyncio.gather(*map(flood, range(_CLIENTS)))
    lines.append(row(f"{name}: no-op cell, {_CLIENTS} clients without pause", times))
    lines.append(f"| {name}: no-op cells a second, {_CLIENTS} clients | {sum(counts) / _FLOOD_S:.0f} | | {sum(counts)} |")
    for connection, session in zip(connections, sessions, strict=True):
        connection.close()
        await session.close()
    return lines


def session_processes(server: psutil.Process) -> dict[int, psutil.Process]:
    """Everything below a server, by process id."""
    return {process.pid: process for process in server.children(recursive=True)}


async def ours(url: str, rounds: int, image: bytes, name: str) -> list[str]:
    """One back-end of our server."""
    (server,) = (
        p for p in psutil.Process().children(recursive=True) if url.rsplit(":", 1)[1] in p.cmdline() and p.children()
    )
    lines = []
    async with SandboxClient(url, max_in_flight=256) as client:
        opened: list[SandboxSession] = []

        async def open_one() -> None:
            opened.append(await client.open([image]))

        lines.append(row(f"{name}: open a session with an uploaded 3 MP image", await timed(open_one, rounds, pause_s=0.1)))
        session = opened[0]
        lines.append(row(f"{name}: no-op cell, 1 client", await timed(lambda: session.execute("1"), rounds)))
        lines += await many_clients(url, client, 5 * rounds, name)
        crop = await timed(lambda: session.execute(_CROP), rounds)
        encode = [1000 * float((await session.execute(_ENCODE)).stdout) for _ in range(rounds)]
        lines.append(row(f"{name}: crop 1000x800 and show it", crop))
        lines.append(row(f"{name}: encoding that crop by Pillow at level 1, for comparison", encode))
        lines.append(row(f"{name}: crop and plt.show()", await timed(lambda: session.execute(_PLOT), rounds)))
        before = session_processes(server)
        idle = await client.open([image])
        await idle.execute("x = 1")
        # The spare that took its place counts too, and has no image: the mean of both.
        await asyncio.sleep(1.0)
        added = [process for pid, process in session_processes(server).items() if pid not in before]
        private = sum(process.memory_full_info().uss for process in added)
        inits = sum(
            1 for process in added if process.parent() is not None and process.parent().pid not in {p.pid for p in added}
        )
        lines.append(f"| {name}: private memory of an idle session, MiB | {private / inits / 2**20:.1f} | | {inits} |")
        late = []
        for _ in range(5):
            started = time.perf_counter()
            await session.execute("while True: pass", timeout_s=2.0)
            late.append(1000 * (time.perf_counter() - started - 2.0))
        lines.append(row(f"{name}: an endless loop with a limit of 2 s ends late by", late))
        for other in (*opened, idle):
            await other.close()

        async def whole() -> None:
            each = await client.open([image])
            await each.execute("image_1.crop((0, 0, 112, 112))")
            await each.close()

        started = time.perf_counter()
        await asyncio.gather(*(whole() for _ in range(rounds)))
        elapsed = 1000 * (time.perf_counter() - started) / rounds
        lines.append(f"| {name}: {rounds} sessions at once, open, crop, close; each | {elapsed:.1f} | | {rounds} |")
    return lines


async def peer(url: str, rounds: int, image: bytes) -> list[str]:
    """Another server: its first cell carries the image, as its clients do it."""
    name = url.rsplit("/", 1)[1]
    picture = base64.b64encode(image).decode()
    init = f"import base64, io\nfrom PIL import Image\ndata = io.BytesIO(base64.b64decode({picture!r}))\n"
    init += "image_1 = Image.open(data).convert('RGB')\ndel data"
    async with httpx.AsyncClient(timeout=300) as http:

        async def run(session_id: str, code: str, timeout_s: float = 60.0) -> str:
            response = await http.post(url, json={"session_id": session_id, "code": code, "timeout": timeout_s})
            return response.raise_for_status().text

        session_id = uuid.uuid4().hex
        few = max(3, rounds // 4)
        lines = [row(f"{name}: first cell with a 3 MP image", await timed(lambda: run(uuid.uuid4().hex, init), few))]
        await run(session_id, init)
        if "2048" not in (said := await run(session_id, "print(image_1.size)")):  # an error is quick, and no figure
            raise SystemExit(f"{url} does not keep an image from one cell to the next; it said {said[:300]}")
        lines.append(row(f"{name}: no-op cell, 1 client", await timed(lambda: run(session_id, "1"), few)))
        lines.append(row(f"{name}: crop and plt.show()", await timed(lambda: run(session_id, _PLOT), few)))
        ids = [uuid.uuid4().hex for _ in range(_CLIENTS)]
        deadline, count = time.perf_counter() + _FLOOD_S, 0

        async def flood(each: str) -> None:
            nonlocal count
            while time.perf_counter() < deadline:
                await run(each, "1")
                count += 1

        await asyncio.gather(*map(flood, ids))
        lines.append(f"| {name}: no-op cells a second, {_CLIENTS} clients | {count / _FLOOD_S:.1f} | | {count} |")
        started = time.perf_counter()
        await run(session_id, "while True: pass", 2.0)
        lines.append(row(f"{name}: an endless loop ends late by", [1000 * (time.perf_counter() - started - 2.0)]))
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

    lines.append(row("bare ipykernel: no-op cell, 1 client", await timed(lambda: execute("1"), rounds)))
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
            level = httpx.get(f"{url}/health").json()["isolation"]
            print(f"| _{backend}: isolation level {level['level']}, {level['name']}_ | | | |")
            yield url


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Sandbox sessions beside a bare ipykernel.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--backend", action="append", choices=("fork", "jupyter"), help="both by default")
    parser.add_argument(
        "--peer-url", action="append", default=[], help="…/jupyter_sandbox or …/run_jupyter of your own server"
    )
    options = parser.parse_args()
    image = photo()
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, image of {len(image):,} bytes; times in ms\n")
    print("| | p50 | p99 | n |\n| --- | --: | --: | --: |")
    for backend in options.backend or ("fork", "jupyter"):
        with server(backend) as url:
            print("\n".join(asyncio.run(ours(url, options.rounds, image, backend))), flush=True)
    print("\n".join(asyncio.run(bare(options.rounds))), flush=True)
    for url in options.peer_url:
        print("\n".join(asyncio.run(peer(url, options.rounds, image))), flush=True)


if __name__ == "__main__":
    main()
