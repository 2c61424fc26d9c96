"""Whose fault an end is: what we lose is made again or is an outage, what the model breaks is its own observation."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from redis.asyncio import Redis

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SessionLost
from serving.processes import free_port, redis_server, sandbox_server
from tests.conftest import png
from tests.services.test_sandbox_outages import kill, server_process

pytestmark = pytest.mark.services

ARGUMENTS = ("--require-level", "0", "--spare-kernels", "1")


@pytest.fixture(params=["fork", "jupyter"])
def server(request, redis_url, tmp_path):
    with sandbox_server(tmp_path, redis_url, arguments=(*ARGUMENTS, "--backend", request.param)) as url:
        yield url


def zygote(url):
    return next(child for child in server_process(url).children() if "zygote_process" in " ".join(child.cmdline()))


def kill_and_wait(*processes):
    for process in processes:
        process.kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def kill_zygote(url):
    """With its sessions, which end a moment after it."""
    kill_and_wait(zygote(url), *zygote(url).children())


def signal_tree(process, number):
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            each.send_signal(number)


async def test_when_the_zygote_is_killed_every_session_goes_on_with_its_variables_and_the_cell_that_ran(server):
    async with SandboxClient(server) as client:
        idle, busy = await client.open([png(30, 20)]), await client.open()
        await idle.execute("x = [image_1.size]")
        await idle.execute("x.append(2)")
        await busy.execute("y = 40")
        running = asyncio.create_task(busy.execute("import time; time.sleep(1.5); y += 2; y"))
        await asyncio.sleep(0.7)
        await asyncio.to_thread(kill_zygote, server)
        result = await running
        assert (result.status, result.result, result.state_lost, result.replayed) == ("ok", "42", False, 1)
        result = await idle.execute("x")
        assert (result.status, result.result, result.state_lost, result.replayed) == ("ok", "[(30, 20), 2]", False, 2)


async def test_a_session_that_is_killed_from_outside_goes_on_and_one_that_kills_itself_is_told(server):
    async with SandboxClient(server) as client:
        session = await client.open()
        await session.execute("x = 1")
        await asyncio.to_thread(kill_and_wait, *zygote(server).children())
        result = await session.execute("x")
        assert (result.status, result.result, result.replayed) == ("ok", "1", 1)
        for code in (
            "import os; os._exit(3)",
            "import os; os.kill(os.getpid(), 9)",
            "import ctypes; ctypes.string_at(0)",
        ):
            result = await session.execute(code)
            assert (result.status, result.state_lost, result.replayed) == ("killed", True, 0)
            assert (await session.execute("'x' in dir()")).result == "False"
        await session.execute("import threading, os; threading.Timer(0.3, os._exit, (1,)).start()")
        await asyncio.sleep(0.6)
        assert (await session.execute("1")).status == "killed"


async def test_a_session_that_we_lost_and_cannot_make_again_is_an_outage(server):
    async with SandboxClient(server) as client:
        session = await client.open()
        await session.execute("import time; print(time.time())")
        await asyncio.to_thread(kill_zygote, server)
        with pytest.raises(SessionLost, match="cell 0 did not do the same"):
            await session.execute("1")


async def test_the_time_in_which_the_server_or_all_of_it_was_stopped_is_no_time_of_the_cell(server):
    async with SandboxClient(server) as client:
        session = await client.open()
        process = server_process(server)
        for stop, go_on in (
            (process.suspend, process.resume),
            (lambda: signal_tree(process, signal.SIGSTOP), lambda: signal_tree(process, signal.SIGCONT)),
        ):
            running = asyncio.create_task(session.execute("import time; time.sleep(1); 7", timeout_s=2.5))
            await asyncio.sleep(0.4)
            stop()
            await asyncio.sleep(4)
            go_on()
            result = await running
            assert (result.status, result.result) == ("ok", "7")
            # Nor is it told as its running time, which an episode's deadline counts.
            assert result.execution_time_s <= 2.5


async def health_until(client, is_wanted):
    async with asyncio.timeout(60):
        while not is_wanted(state := (await client.health())[0]):
            await asyncio.sleep(0.05)
    return state


async def test_what_a_cell_shows_while_the_server_cannot_listen_is_all_there_and_the_cell_ends(server):
    code = "import time\ntime.sleep(0.5)\nfor number in range(4000):\n    display(number)\n'all of it'"
    process = server_process(server)
    async with SandboxClient(server) as client:
        session = await client.open()
        running = asyncio.create_task(session.execute(code, timeout_s=30, max_chars=100_000))
        await asyncio.sleep(0.3)
        process.suspend()
        await asyncio.sleep(5)
        process.resume()
        shown = await running
    assert (shown.status, shown.result) == ("ok", "'all of it'")
    assert shown.stdout.split() == [str(number) for number in range(4000)]


async def test_a_zygote_that_is_stopped_is_seen_and_goes_on_before_anybody_is_kept_waiting(server):
    async with SandboxClient(server) as client:
        stopped = zygote(server)
        stopped.suspend()
        state = await health_until(client, lambda state: state.zygote == "stopped")
        assert state.status == "degraded"
        async with asyncio.timeout(10):
            sessions = await asyncio.gather(*(client.open() for _ in range(3)))
        assert [(await session.execute("1")).result for session in sessions] == ["1"] * 3
        state = await health_until(client, lambda state: state.zygote == "ok")
        assert (state.status, state.outages["zygotes"], zygote(server).pid) == ("ok", 0, stopped.pid)


async def test_a_zygote_that_is_killed_is_there_again_before_anybody_asks(server):
    async with SandboxClient(server) as client:
        zygote(server).kill()
        state = await health_until(client, lambda state: state.outages["zygotes"])
        assert state.outages == {"processes": 0, "sessions": 0, "zygotes": 1}
        await health_until(client, lambda state: state.zygote == "ok")
        assert (await (await client.open()).execute("1")).result == "1"


async def test_health_counts_what_we_lost_and_what_the_model_broke_apart(server):
    async with SandboxClient(server) as client:
        session = await client.open()
        await session.execute("x = 1")
        await asyncio.to_thread(kill_and_wait, *zygote(server).children())
        await session.execute("x")
        for code in ("1/0", "import os; os._exit(1)", "print(time.time())", "import time; print(time.time())"):
            await session.execute(code)
        await session.execute("while True: pass", timeout_s=0.2)
        await asyncio.to_thread(kill_and_wait, *zygote(server).children())
        with pytest.raises(SessionLost):
            await session.execute("1")
        (state,) = await client.health()
        assert state.outages == {"processes": 2, "sessions": 1, "zygotes": 0}
        assert state.model_faults == {"error": 2, "timeout": 1, "killed": 1}
        page = httpx.get(f"{server}/metrics").text
        assert 'deepeyes_sandbox_lost_total{what="sessions"} 1.0' in page


@pytest.mark.parametrize("backend", ["fork", "jupyter"])
def test_a_memory_limit_below_what_a_session_begins_with_is_refused_at_start_in_one_line(redis_url, tmp_path, backend):
    config = tmp_path / "sandbox.yaml"
    config.write_text(f"memory_limit_bytes: {200 << 20}\nbackend: {backend}\n")
    command = [sys.executable, "-m", "code_sandbox.server", "--port", str(free_port()), "--redis-url", redis_url]
    refused = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, timeout=50)
    assert refused.returncode == 1
    # A server that others have killed may be told of before.
    *before, line = (refused.stdout + refused.stderr).strip().splitlines()
    assert not any("Traceback" in other or "memory" in other for other in before)
    wanted = int(re.search(r"set at least ([\d,]+)", line)[1].replace(",", ""))
    assert "memory_limit_bytes is 209,715,200" in line
    # What it asks for is enough.
    config.write_text(f"memory_limit_bytes: {wanted}\nbackend: {backend}\n")
    with sandbox_server(tmp_path, redis_url, arguments=("--config", str(config))) as url:
        assert httpx.get(f"{url}/health").json()["isolation"]["level"] >= 1


@pytest.mark.parametrize("how", ["emptied", "restarted"])
async def test_live_sessions_go_on_when_redis_has_forgotten_them_and_can_move_again(tmp_path, how):
    port = free_port()
    with contextlib.ExitStack() as servers, contextlib.ExitStack() as redis:
        redis_url = redis.enter_context(redis_server(tmp_path, port=port))
        urls = [servers.enter_context(sandbox_server(tmp_path / name, redis_url, arguments=ARGUMENTS)) for name in "ab"]
        async with SandboxClient(urls) as client:
            session, quiet = await client.open(session_id="busy"), await client.open(session_id="quiet")
            for each in (session, quiet):
                await each.execute("x = 1")
            running = asyncio.create_task(session.execute("import time; time.sleep(2); x += 1; x"))
            await asyncio.sleep(0.5)
            if how == "emptied":
                async with Redis.from_url(redis_url) as connection:
                    await connection.flushall()
            else:
                redis.close()
                redis.enter_context(redis_server(tmp_path, port=port))
            result = await running
            assert (result.status, result.result) == ("ok", "2")
            assert (await session.execute("x")).result == "2"
            # Until the next heartbeat, the quiet one is nowhere written down.
            await asyncio.sleep(4)
            for each in (session, quiet):
                with contextlib.suppress(LookupError):
                    kill(each.url)
                    await asyncio.sleep(0.2)
                    break
            moved = session if session.url == each.url else quiet
            result = await moved.execute("x")
            assert result.status == "ok"
            assert result.replayed == (3 if moved is session else 1)
            assert (await (quiet if moved is session else session).execute("x")).status == "ok"


async def test_pictures_that_are_too_large_together_are_left_out_and_the_cell_is_none_the_worse(sandbox_url):
    code = """
import io, numpy
from IPython.display import Image as File
from PIL import Image
noise = io.BytesIO()
Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (3200, 3200, 3), dtype='uint8')).save(noise, 'PNG', compress_level=0)
for _ in range(10): display(File(data=noise.getvalue()))
kept = 1
"""
    async with SandboxClient(sandbox_url) as client:
        session = await client.open()
        result = await session.execute(code, timeout_s=200, max_pixels=1 << 40)
        assert (result.status, result.state_lost) == ("ok", False)
        assert len(result.images) == 4
        assert "image was dropped" in result.stderr
        assert "6 times" in result.stderr
        assert (await session.execute("kept")).result == "1"


def folders(root):
    return {path for path in root.glob("dsb-*") if path.stat().st_uid == os.geteuid()}


def test_what_a_killed_server_has_left_is_removed_by_the_next_one_and_that_of_a_live_one_is_not(redis_url, tmp_path):
    # Of these servers alone: others run beside them. Not below tmp_path, for the path of a socket has an end.
    root = Path(tempfile.mkdtemp(prefix="blame"))
    started = partial(sandbox_server, redis_url=redis_url, arguments=ARGUMENTS, prefix=("env", f"TMPDIR={root}"))
    with started(tmp_path / "a") as url:
        lives = folders(root)
        with started(tmp_path / "b") as other:
            (left,) = folders(root) - lives
            processes = server_process(other).children(recursive=True)
            kill(other)
        psutil.wait_procs(processes, timeout=10)
        assert left.exists()
        time.sleep(0.2)
        with started(tmp_path / "c"):
            assert not left.exists()
            assert lives <= folders(root)
        assert server_process(url).is_running()
    shutil.rmtree(root)
