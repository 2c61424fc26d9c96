"""The real server: real Redis, real Jupyter kernels, real HTTP."""

import asyncio
import base64
import contextlib
import io
import socket
import subprocess
import sys
import time
import uuid

import httpx
import psutil
import pytest
from PIL import Image

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxRequestRefused, SandboxUnavailable, SessionLost
from serving.processes import ProgramFailed, free_port, redis_server, sandbox_server, start, stop
from tests.conftest import ROOT, png

pytestmark = pytest.mark.services


@pytest.fixture
async def session(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        session = await client.open([png(64, 48, (1, 2, 3)), png(10, 20)])
        yield session
        await session.close()


async def test_every_image_is_preloaded_and_state_lives_on(session):
    assert (
        await session.execute("(image_1.size, image_2.size, image_1.getpixel((0, 0)))")
    ).result == "((64, 48), (10, 20), (1, 2, 3))"
    await session.execute("x = 41\ndef f(): return x + 1")
    assert (await session.execute("f()")).result == "42"
    names = set((await session.execute("print(*[n for n in dir() if not n.startswith('_')])")).stdout.split())
    assert names - {"In", "Out", "exit", "quit", "get_ipython", "open"} == {"x", "f", "image_1", "image_2"}


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("image_1", (64, 48)),
        ("image_1.crop((0, 0, 7, 9))", (7, 9)),
        ("display(image_2)", (10, 20)),
        ("from IPython.display import display\ndisplay(image_2)\n3", (10, 20)),
    ],
)
async def test_images_come_back_from_the_last_expression_and_display(session, code, size):
    result = await session.execute(code)
    (image,) = result.images
    assert (image.width_px, image.height_px) == size == Image.open(io.BytesIO(image.data)).size


async def test_plt_show_comes_back_as_a_picture(session):
    result = await session.execute(
        "import matplotlib.pyplot as plt\nplt.imshow(image_1)\nplt.show()\nplt.plot([1])\nplt.show()"
    )
    assert len(result.images) == 2
    assert result.stderr == ""
    assert min(result.images[0].width_px, result.images[0].height_px) > 100


async def test_code_runs_as_written(session):
    code = "out = []\nfor i in range(3):\n    out.append(i)\nout.append('after')\ntext = '''a\n\n  b'''\nif False:\n    pass\nelse_value = 1\nprint(out, repr(text))"
    assert (await session.execute(code)).stdout == "[0, 1, 2, 'after'] 'a\\n\\n  b'\n"


async def test_an_exception_is_reported_as_a_notebook_shows_it(session):
    result = await session.execute("def f(): 1/0\nf()")
    assert (result.status, result.error.name, result.error.message) == ("error", "ZeroDivisionError", "division by zero")
    assert result.error.traceback.endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in result.error.traceback
    assert (await session.execute("x = (")).error.name == "SyntaxError"
    assert (await session.execute("import sys; print('e', file=sys.stderr)")).stderr == "e"


async def test_a_time_out_is_on_time_and_keeps_the_variables(session):
    await session.execute("kept = 1")
    started = time.monotonic()
    result = await session.execute("import time\ntime.sleep(60)", timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert time.monotonic() - started < 10.0
    assert (await session.execute("kept")).result == "1"


async def test_code_that_ignores_the_interrupt_is_killed_and_the_images_come_back(session):
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    result = await session.execute(code, timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", True)
    assert (await session.execute("image_1.size")).result == "(64, 48)"


@pytest.mark.parametrize(
    "code", ["import os; os.kill(os.getpid(), 9)", "import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"]
)
async def test_a_kernel_that_dies_is_reported_at_once_and_replaced(session, code):
    started = time.monotonic()
    result = await session.execute(code, timeout_s=30)
    assert (result.status, result.state_lost) == ("killed", True)
    assert time.monotonic() - started < 5
    assert (await session.execute("image_1.size")).result == "(64, 48)"


async def test_memory_and_output_are_bounded(session):
    assert (await session.execute("x = bytearray(10**11)")).error.name == "MemoryError"
    result = await session.execute("print('x' * 10**7)")
    assert "\n[output cut at 20,000 characters]\n" in result.stdout
    assert len(result.stdout) < 20_100


@pytest.mark.parametrize(("wanted", "left_out"), [(10, 4), (14, 0), (0, 14)])
async def test_as_many_images_and_characters_come_back_as_were_asked_for(session, wanted, left_out):
    many = await session.execute("for _ in range(14): display(image_2)\nprint('x' * 500)", max_images=wanted, max_chars=100)
    assert len(many.images) == wanted
    assert (f"[{left_out} more images were dropped]" in many.stderr) == (left_out > 0)
    assert many.stdout == "x" * 50 + "\n[output cut at 100 characters]\n" + "x" * 49 + "\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', PORT), 2)",
        "socket.create_connection(('10.255.255.1', 80), 2)",
        "socket.socket(socket.AF_INET6).connect(('::1', PORT))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    ],
)
async def test_a_cell_reaches_no_network_and_so_no_redis(session, any_sandbox_url, redis_url, attempt):
    port = redis_url.split(":")[2].split("/")[0]
    result = await session.execute(f"import socket\n{attempt.replace('PORT', port)}", timeout_s=10)
    assert result.error is not None
    assert result.error.name == "PermissionError"
    assert (await session.execute("1")).result == "1"


async def test_sessions_do_not_share_variables_images_or_random_numbers(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        sessions = [await client.open([png(n, n)]) for n in (11, 12, 13)]
        await sessions[0].execute("secret = 1")
        assert (await sessions[1].execute("secret")).error.name == "NameError"
        assert [(await s.execute("image_1.size[0]")).result for s in sessions] == ["11", "12", "13"]
        draws = {(await s.execute("import random, numpy; (random.random(), numpy.random.rand())")).result for s in sessions}
        assert len(draws) == 3
        for s in sessions:
            await s.close()


async def test_a_session_is_an_ipython_shell_and_its_processes_end_with_it(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        session = await client.open()
        result = await session.execute("get_ipython().__class__.__name__")
        assert result.result in ("'ZMQInteractiveShell'", "'CellShell'")
        mark = f"300.{uuid.uuid4().int}"
        result = await session.execute(f"import subprocess; subprocess.Popen(['sleep', '{mark}'], start_new_session=True)")
        assert result.status == "ok", result
        async with asyncio.timeout(10):
            while not running(mark):
                await asyncio.sleep(0.05)
        await session.close()
        assert not running(mark)
        with pytest.raises(SessionLost, match="no session"):
            await session.execute("1")


def running(mark):
    """Whether a process has `mark` in its command line; a session's process ids are its own."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.append(mark in process.cmdline())
    return any(found)


async def test_thirty_two_sessions_at_once_all_answer(any_sandbox_url):
    async def one(client, number):
        session = await client.open([png(40, 40)])
        result = await session.execute(f"{number} * 2")
        await session.close()
        return int(result.result)

    async with SandboxClient(any_sandbox_url) as client:
        assert await asyncio.gather(*(one(client, n) for n in range(32))) == [2 * n for n in range(32)]


async def test_opening_a_session_twice_is_one_session_and_a_broken_image_is_refused(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        first = await client.open(session_id="twice")
        await first.execute("x = 5")
        second = await client.open(session_id="twice")
        assert (await second.execute("x")).result == "5"
        await first.close()
        await second.close()
        with pytest.raises(SandboxRequestRefused, match="the image .* cannot be read"):
            await client.open([b"oops"])


def test_the_upstream_route_speaks_the_published_fields(any_sandbox_url):
    def call(code, **more):
        reply = httpx.post(
            f"{any_sandbox_url}/jupyter_sandbox", json={"session_id": "legacy", "code": code, **more}, timeout=60
        )
        return reply.json()

    image = base64.b64encode(png(30, 20)).decode()
    init = f"import base64, io\nfrom PIL import Image\nimage_1 = Image.open(io.BytesIO(base64.b64decode('{image}')))"
    assert call(init)["status"] == "success"
    reply = call("print(1)\ndisplay(image_1)\nimage_1.size")
    assert set(reply) == {"output", "status", "execution_time"}
    assert (reply["output"]["result"], reply["output"]["stdout"], reply["output"]["stderr"]) == ("(30, 20)", "1\n", "")
    assert Image.open(io.BytesIO(base64.b64decode(reply["output"]["images"][0]))).size == (30, 20)
    assert "ZeroDivisionError" in call("1/0")["output"]["stderr"]
    assert call("1/0")["status"] == "success"
    assert "TimeOutError: code execution timed out" in call("while True: pass", timeout=0.5)["output"]["stderr"]
    assert call("  ")["status"] == "error"
    assert httpx.post(f"{any_sandbox_url}/clear_session", json={"session_id": "legacy"}).json() == {"status": "success"}
    assert "NameError" in call("image_1")["output"]["stderr"]


def test_the_second_upstream_route_speaks_the_published_fields(sandbox_url):
    def call(code, **more):
        body = {"session_id": "legacy-2", "code": code, **more}
        return httpx.post(f"{sandbox_url}/run_jupyter", json=body, timeout=60).json()

    reply = call("from PIL import Image\nprint(1)\ndisplay(Image.new('RGB', (30, 20)))\n6 * 7")
    assert set(reply) == {"output", "status", "execution_time"}
    assert set(reply["output"]) == {"stdout", "stderr", "stdout_raw", "stderr_raw", "images"}
    assert reply["output"]["stdout"] == reply["output"]["stdout_raw"] == "1\n42"
    prefix, _, data = reply["output"]["images"][0].partition(",")
    assert prefix == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (30, 20)
    assert "ZeroDivisionError" in call("1/0")["output"]["stderr_raw"]
    assert "TimeOutError" in call("while True: pass", timeout=0.5)["output"]["stderr"]
    assert call("Image.__name__")["status"] == "success"
    assert call("")["status"] == "error"


async def test_a_full_server_answers_429_and_a_lease_ends_a_session(redis_url, tmp_path):
    with sandbox_server(tmp_path, redis_url, arguments=("--max-sessions", "1", "--lease-s", "1")) as url:
        async with SandboxClient(url, wait_s=0.3) as client:
            session = await client.open()
            with pytest.raises(SandboxUnavailable, match="1 of 1 sessions are live"):
                await client.open()
            await asyncio.sleep(2.5)
            with pytest.raises(SessionLost):
                await session.execute("1")
            await (await client.open()).close()


async def test_when_redis_is_lost_live_sessions_go_on_and_new_ones_get_a_clear_error(tmp_path):
    context = redis_server(tmp_path)
    redis_url = context.__enter__()
    try:
        with sandbox_server(tmp_path, redis_url) as url:
            async with SandboxClient(url, wait_s=0.5) as client:
                session = await client.open()
                context.__exit__(None, None, None)
                assert (await session.execute("6 * 7")).result == "42"
                (state,) = await client.health()
                assert (state.status, state.redis) == ("degraded", "down")
                with pytest.raises(SandboxUnavailable, match="no Redis at"):
                    await client.open()
    finally:
        context.__exit__(None, None, None)


def test_a_server_that_cannot_start_says_why_and_what_to_do(tmp_path):
    with (
        pytest.raises(ProgramFailed, match="no Redis at redis://127.0.0.1:9.*start one with"),
        sandbox_server(tmp_path, "redis://127.0.0.1:9/0"),
    ):
        pass
    command = [sys.executable, "-m", "deepeyes.cli", "sandbox", "serve", "--port"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = subprocess.run([*command, port], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert result.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    result = subprocess.run(
        [*command, "0", "--host", "0.0.0.0"], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert "set CODE_SANDBOX_TOKEN" in result.stderr


def test_a_stopped_server_leaves_no_process_and_no_file(redis_url, tmp_path):
    port = str(free_port())
    command = [sys.executable, "-m", "deepeyes.cli", "sandbox", "serve", "--port", port, "--redis-url", redis_url]
    temporary = tmp_path / "t"
    temporary.mkdir()
    process = start([*command, "--spare-kernels", "2"], log=tmp_path / "log", env={"TMPDIR": str(temporary)})
    for _ in range(100):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).raise_for_status()
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    time.sleep(1)
    (directory,) = temporary.iterdir()
    processes = psutil.Process(process.pid).children(recursive=True)
    assert len(processes) == 5  # the zygote, and two spares of an init and a worker each
    stop(process)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in processes)
    assert not directory.exists()
