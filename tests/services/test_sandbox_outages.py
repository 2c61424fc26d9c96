"""What happens to sessions when servers, callers and limits get in the way. Real servers, real Redis."""

import asyncio
import base64
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import httpx
import msgpack
import psutil
import pytest

from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxRequestRefused, SandboxUnavailable, SessionLost
from serving.processes import sandbox_server
from tests.conftest import png

pytestmark = pytest.mark.services

ARGUMENTS = ("--require-level", "0", "--spare-kernels", "1")


@pytest.fixture
def two_servers(redis_url, tmp_path):
    with (
        sandbox_server(tmp_path / "a", redis_url, arguments=ARGUMENTS) as first,
        sandbox_server(tmp_path / "b", redis_url, arguments=ARGUMENTS) as second,
    ):
        yield first, second


def server_process(url):
    port = url.rsplit(":", 1)[1]
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "code_sandbox.server" in process.cmdline() and port in process.cmdline():
                return process
    raise LookupError(url)


def kill(url):
    process = server_process(url)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


async def test_when_a_server_dies_its_sessions_go_on_elsewhere_with_variables_images_and_random_numbers(two_servers):
    async with SandboxClient(two_servers) as client:
        session, unharmed = await client.open([png(30, 20)]), await client.open([png(30, 20)])
        cells = [
            "x = [1]",
            "import random; y = random.random()",
            "x.append(image_1.size)",
            "open('f', 'w').write('kept')",
            "1/0",
        ]
        for cell in cells:
            await session.execute(cell)
            await unharmed.execute(cell)
        drawn = (await session.execute("y, {'a', 'b', 'c'}, random.random()")).result
        await asyncio.sleep(0.2)
        first = session.url
        kill(first)
        result = await session.execute("x, y, open('f').read()")
        assert (result.status, result.replayed) == ("ok", 6)
        assert result.result.startswith("([1, (30, 20)], ")
        assert result.result.endswith("'kept')")
        assert drawn.split(",")[0].strip("(") in result.result
        assert session.url != first
        again = await session.execute("len(x)")
        assert (again.result, again.replayed) == ("2", 0)
        await session.close()
        if unharmed.url != first:
            assert (await unharmed.execute("len(x)")).replayed == 0


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["import time; print(time.time())", "1"], "cell 0 did not do the same"),
        (["import time; time.sleep(9)"], "timed out cannot be run again"),
    ],
)
async def test_a_session_that_cannot_be_made_again_is_lost_and_not_faked(two_servers, cells, why):
    async with SandboxClient(two_servers) as client:
        session = await client.open()
        for cell in cells:
            await session.execute(cell, timeout_s=0.5)
        await asyncio.sleep(0.2)
        kill(session.url)
        with pytest.raises(SessionLost, match=why):
            await session.execute("1")
        with pytest.raises(SessionLost, match="no session"):
            await session.execute("1")


async def test_a_cell_that_ran_when_its_server_died_is_an_outage_and_not_run_again(two_servers):
    async with SandboxClient(two_servers) as client:
        session = await client.open()
        await session.execute("x = 1")
        running = asyncio.create_task(session.execute("import time; time.sleep(30); x = 2"))
        await asyncio.sleep(0.5)
        kill(session.url)
        with pytest.raises(SandboxUnavailable, match="whether the cell ran is not known"):
            await running
        assert (await session.execute("x")).result == "1"


async def test_a_state_that_was_lost_with_its_process_is_not_brought_back_by_a_move(two_servers):
    async with SandboxClient(two_servers) as client:
        session = await client.open([png(5, 5)])
        await session.execute("x = 1")
        assert (await session.execute("import os; os._exit(1)")).state_lost
        await session.execute("y = 2")
        await asyncio.sleep(0.2)
        kill(session.url)
        result = await session.execute("'x' in dir(), y, image_1.size")
        assert (result.result, result.replayed) == ("(False, 2, (5, 5))", 1)


async def test_a_server_that_is_asked_to_end_lets_a_running_cell_finish_and_its_sessions_move(two_servers):
    async with SandboxClient(two_servers) as client:
        session = await client.open()
        running = asyncio.create_task(session.execute("import time; time.sleep(1.5); x = 7"))
        await asyncio.sleep(0.5)
        process = server_process(session.url)
        process.send_signal(signal.SIGTERM)
        assert (await running).status == "ok"
        process.wait(15)
        result = await session.execute("x")
        assert (result.result, result.replayed) == ("7", 1)


async def test_callers_that_count_nothing_lose_nothing_either(two_servers):
    async with httpx.AsyncClient(timeout=60) as http:
        await http.post(f"{two_servers[0]}/v1/sessions", json={"session_id": "plain"})
        for code in ("x = 5", "x += 1"):
            await http.post(f"{two_servers[0]}/v1/sessions/plain/execute", json={"code": code})
        kill(two_servers[0])
        for _ in range(40):
            reply = await http.post(f"{two_servers[1]}/v1/sessions/plain/execute", json={"code": "x"})
            if reply.status_code == 200:
                break
            # Until its heartbeat has expired, the other server takes the dead one for slow.
            assert reply.status_code == 503
            assert reply.json()["error"] == "SessionHeld"
            await asyncio.sleep(0.5)
        assert (reply.json()["result"], reply.json()["replayed"]) == ("6", 2)


async def test_a_caller_that_has_missed_an_answer_is_told(sandbox_url):
    async with httpx.AsyncClient(timeout=60) as http:
        await http.post(f"{sandbox_url}/v1/sessions", json={"session_id": "step"})
        url = f"{sandbox_url}/v1/sessions/step/execute"
        assert (await http.post(url, json={"code": "1", "cell": 0})).status_code == 200
        reply = await http.post(url, json={"code": "1", "cell": 0})
        assert (reply.status_code, reply.json()["error"]) == (409, "OutOfStep")


async def test_when_the_caller_hangs_up_its_cell_is_stopped(sandbox_url):
    mark = f"77.{random.getrandbits(60)}"
    async with SandboxClient(sandbox_url) as client:
        session = await client.open()
        running = asyncio.create_task(session.execute(f"import subprocess; subprocess.run(['sleep', '{mark}'])"))
        await asyncio.sleep(1.0)
        assert any(mark in process.cmdline() for process in psutil.process_iter() if process.name() == "sleep")
        running.cancel()
        await asyncio.sleep(1.0)
        assert not any(mark in process.cmdline() for process in psutil.process_iter() if process.name() == "sleep")
        with pytest.raises(SessionLost):
            await session.execute("1")


async def test_waiting_is_bounded_and_does_not_count_as_running(redis_url, tmp_path):
    config = tmp_path / "sandbox.yaml"
    config.write_text("max_running_cells: 1\nmax_waiting_cells: 2\n")
    with sandbox_server(tmp_path, redis_url, arguments=(*ARGUMENTS, "--config", str(config))) as url:
        async with SandboxClient(url, wait_s=0.1) as hasty, SandboxClient(url, wait_s=30) as patient:
            sessions = [await patient.open() for _ in range(4)]
            code = "import time; time.sleep(1.2)"
            cells = [asyncio.create_task(session.execute(code, timeout_s=1.5)) for session in sessions[:3]]
            await asyncio.sleep(0.5)
            late = await hasty.open(session_id=sessions[3].session_id)
            with pytest.raises(SandboxUnavailable, match="2 cells are waiting already"):
                await late.execute("1")
            assert [result.status for result in await asyncio.gather(*cells)] == ["ok"] * 3
            reply = await asyncio.gather(
                sessions[0].execute(code),
                asyncio.to_thread(
                    httpx.post,
                    f"{url}/v1/sessions/{sessions[1].session_id}/execute",
                    json={"code": "1", "queue_timeout_s": 0.3},
                ),
            )
            assert (reply[1].status_code, reply[1].json()["error"]) == (503, "QueueTimeout")


async def test_a_unix_socket_and_a_token_keep_others_out(redis_url, tmp_path, monkeypatch):
    path = tmp_path / "sandbox.sock"
    monkeypatch.setenv("CODE_SANDBOX_TOKEN", "hush")
    with sandbox_server(tmp_path, redis_url, arguments=ARGUMENTS) as url:
        process = server_process(url)
        assert httpx.get(f"{url}/metrics").status_code == 200
        assert httpx.post(f"{url}/v1/sessions", json={"session_id": "a"}).status_code == 401
        async with SandboxClient(url, token="wrong") as client:
            with pytest.raises(SandboxRequestRefused, match="CODE_SANDBOX_TOKEN"):
                await client.open()
        async with SandboxClient(url) as client:
            assert (await (await client.open()).execute("1")).result == "1"
        environments = [p.environ() for p in process.children(recursive=True)]
        assert not any("hush" in str(environment) for environment in environments)
    monkeypatch.delenv("CODE_SANDBOX_TOKEN")
    with sandbox_server(tmp_path, redis_url, arguments=ARGUMENTS, uds=path) as url:
        assert path.stat().st_mode & 0o777 == 0o600
        async with SandboxClient(url) as client:
            session = await client.open([png(9, 9)])
            assert (await session.execute("image_1.size")).result == "(9, 9)"
            assert (await client.health())[0].server_id == f"unix:{path}"
    assert not path.exists()


async def test_results_are_the_same_as_json_and_as_msgpack_and_images_are_shrunk_in_the_sandbox(sandbox_url):
    body = {"code": "print('é')\nimage_1", "max_pixels": 1000, "image_format": "jpeg"}
    data = png(100, 50)
    async with SandboxClient(sandbox_url) as client:
        session = await client.open([data])
        url = f"{sandbox_url}/v1/sessions/{session.session_id}/execute"
        plain = httpx.post(url, json=body).json()
        packed = msgpack.unpackb(
            httpx.post(
                url,
                content=msgpack.packb(body),
                headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
            ).content
        )
    (one,), (other,) = plain.pop("images"), packed.pop("images")
    assert base64.b64decode(one.pop("data")) == other.pop("data")
    assert one == other == {"mime": "image/jpeg", "width_px": 44, "height_px": 22}
    assert {**plain, "execution_time_s": 0} == {**packed, "execution_time_s": 0}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"code": 5}, "code: Input should be a valid string"),
        ({"code": "1", "timeout": 3}, "timeout: Extra inputs are not permitted"),
        ({"code": "1", "timeout_s": 0}, "timeout_s: Input should be greater than 0"),
    ],
)
def test_a_wrong_body_is_refused_with_its_field(sandbox_url, body, why):
    reply = httpx.post(f"{sandbox_url}/v1/sessions/x/execute", json=body)
    assert reply.status_code == 422
    assert why in reply.json()["message"]


async def test_metrics_count_what_happened(sandbox_url):
    async with SandboxClient(sandbox_url) as client:
        session = await client.open()
        await session.execute("1/0")
    page = httpx.get(f"{sandbox_url}/metrics").text
    assert 'deepeyes_sandbox_cells_total{status="error"}' in page
    assert "deepeyes_sandbox_cell_seconds_bucket" in page
    assert "deepeyes_sandbox_redis_up 1.0" in page


EATERS = """
import multiprocessing, socket, time
def eat_memory():
    data = bytearray(600 << 20)
    time.sleep(20)
def fill_sockets():
    pairs = []
    try:
        while True:
            pairs.append(socket.socketpair())
            for end in pairs[-1]:
                end.setblocking(False)
                try:
                    while True:
                        end.send(bytes(60_000))
                except BlockingIOError:
                    pass
    except OSError:
        time.sleep(20)
context = multiprocessing.get_context("fork")
eaters = [context.Process(target={eater}) for _ in range({number})]
[eater.start() for eater in eaters]
[eater.join({patience}) for eater in eaters]
"""


@pytest.mark.parametrize(("eater", "enough", "too_many"), [("eat_memory", 2, 4), ("fill_sockets", 2, 12)])
async def test_processes_that_together_use_too_much_memory_are_ended(redis_url, tmp_path, eater, enough, too_many):
    config = tmp_path / "sandbox.yaml"
    config.write_text(f"memory_limit_bytes: {2 << 30}\n")
    with sandbox_server(tmp_path, redis_url, arguments=(*ARGUMENTS, "--config", str(config))) as url:
        async with SandboxClient(url) as client:
            session = await client.open()
            code = EATERS.format(eater=eater, number=too_many, patience=20)
            started = time.monotonic()
            result = await session.execute(code, timeout_s=19)
            assert (result.status, result.state_lost) == ("killed", True)
            assert time.monotonic() - started < 15
            assert (await session.execute("1")).result == "1"
            result = await session.execute(EATERS.format(eater=eater, number=enough, patience=1.5))
            assert (result.status, result.state_lost) == ("ok", False)


async def test_a_session_ends_with_the_server_even_if_that_is_killed(redis_url, tmp_path):
    mark = f"88.{random.getrandbits(60)}"
    with sandbox_server(tmp_path, redis_url, arguments=ARGUMENTS) as url:
        async with SandboxClient(url) as client:
            session = await client.open()
            await session.execute(f"import subprocess; subprocess.Popen(['sleep', '{mark}'], start_new_session=True)")
        pids = [process.pid for process in server_process(url).children(recursive=True)]
        kill(url)
        await asyncio.sleep(1.0)
        assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)
        assert not any(mark in process.cmdline() for process in psutil.process_iter() if process.name() == "sleep")


@pytest.fixture
def control_groups():
    """Empty groups that are ours, of whichever version the machine has."""
    version_1 = [Path("/sys/fs/cgroup") / controller for controller in ("memory", "pids")]
    parents = version_1 if version_1[0].is_dir() else [Path("/sys/fs/cgroup")]
    roots = [parent / f"deepeyes-test-{os.getpid()}" for parent in parents]
    try:
        for root in roots:
            root.mkdir()
    except OSError as error:
        pytest.skip(f"needs control groups below /sys/fs/cgroup that this user may make: {error}")
    yield [str(root) for root in roots]
    for root in roots:
        root.rmdir()


async def test_in_a_control_group_the_kernel_limits_what_a_sessions_processes_use_together(
    redis_url, tmp_path, control_groups
):
    config = tmp_path / "sandbox.yaml"
    config.write_text(f"memory_limit_bytes: {2 << 30}\n")
    groups = [part for path in control_groups for part in ("--cgroup", path)]
    arguments = ("--require-level", "0", "--spare-kernels", "1", "--config", str(config), *groups)
    with sandbox_server(tmp_path, redis_url, arguments=arguments) as url:
        async with SandboxClient(url) as client:
            (state,) = await client.health()
            assert "cgroups" in state.isolation.layers
            assert "memory together" in state.isolation.refused
            session = await client.open()
            code = """
import os, time
children = []
for _ in range(3):
    if (pid := os.fork()) == 0:
        data = bytearray(800 << 20)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(20)
        os._exit(0)
    children.append(pid)
os.waitpid(-1, 0)
"""
            started = time.monotonic()
            result = await session.execute(code, timeout_s=15)
            # The kernel takes one of the processes: the cell's own, or a child whose end it notices.
            assert result.status in ("killed", "ok")
            assert time.monotonic() - started < 12
            await session.close()
    assert all(len([entry for entry in Path(path).iterdir() if entry.is_dir()]) == 0 for path in control_groups)
