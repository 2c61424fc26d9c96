"""A thousand sessions, ten thousand cells among dying processes, and the whole attack suite."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys

import psutil
import pytest

from code_sandbox.attacks import suite
from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxUnavailable, SessionLost
from serving.processes import sandbox_server
from tests.conftest import ROOT, png
from tests.services.test_sandbox_outages import server_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SESSIONS = 1000
CELLS = 10_000
WORKERS = 20


def memory_of(process):
    """Bytes of a server and everything below it, shared pages counted once."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total


async def test_a_thousand_sessions_live_on_one_server_and_all_of_them_answer(redis_url, tmp_path):
    if psutil.virtual_memory().available < 14 << 30:
        pytest.skip(f"needs 14 GiB of free memory, there are {psutil.virtual_memory().available >> 30} GiB")
    arguments = ("--require-level", "0", "--max-sessions", str(SESSIONS), "--spare-kernels", "1")
    image = png(640, 480)
    with sandbox_server(tmp_path, redis_url, arguments=arguments) as url:
        async with SandboxClient(url, wait_s=300, max_in_flight=16) as client:
            sessions = await asyncio.gather(*(client.open([image]) for _ in range(SESSIONS)))
            await asyncio.gather(*(session.execute(f"x = {n}") for n, session in enumerate(sessions)))
            results = await asyncio.gather(*(session.execute("x, image_1.size") for session in sessions))
            assert [result.result for result in results] == [f"({n}, (640, 480))" for n in range(SESSIONS)]
            assert memory_of(server_process(url)) < 24 << 30
            await asyncio.gather(*(session.close() for session in sessions))
        assert len(server_process(url).children(recursive=True)) < 10


class Account:
    """What became of every cell."""

    def __init__(self):
        self.answered = self.killed = self.outages = self.lost = self.replayed = 0

    @property
    def cells(self):
        return self.answered + self.killed + self.outages + self.lost


async def count_up(client, account, rng):
    """One caller: counts in a session, and checks that no answer is ever wrong about what it has counted."""
    session, expected = await client.open(), 0
    while account.cells < CELLS:
        try:
            result = await session.execute("n = n + 1 if 'n' in dir() else 1\nn", timeout_s=20)
        except SandboxUnavailable:
            account.outages += 1
            continue
        except SessionLost:
            account.lost += 1
            session, expected = await client.open(), 0
            continue
        account.replayed += result.replayed > 0
        if result.state_lost:
            assert result.status == "killed"
            account.killed += 1
            expected = 0
            continue
        expected += 1
        assert (result.status, result.result) == ("ok", str(expected))
        account.answered += 1
        if expected > 40:
            await session.close()
            session, expected = await client.open(), 0
        await asyncio.sleep(rng.random() * 0.002)
    await session.close()


async def test_of_ten_thousand_cells_among_random_kills_none_is_lost_silently(redis_url, tmp_path):
    rng = random.Random(0)
    arguments = ("--require-level", "0", "--spare-kernels", "2")
    account = Account()
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(sandbox_server(tmp_path / name, redis_url, arguments=arguments)) for name in ("a", "b")]
        first, second = (server_process(url) for url in urls)

        def kill_a_session():
            with contextlib.suppress(psutil.Error, IndexError):
                (zygote,) = second.children()
                rng.choice(zygote.children()).kill()

        async def kill():
            while account.cells < CELLS:
                await asyncio.sleep(0.2)
                await asyncio.to_thread(kill_a_session)
                if first.is_running() and account.cells > CELLS // 2:
                    first.send_signal(signal.SIGKILL)
                    first.wait(5)

        async with SandboxClient(urls, wait_s=60) as client:
            await asyncio.gather(kill(), *(count_up(client, account, rng) for _ in range(WORKERS)))
        assert not first.is_running()
    assert account.cells >= CELLS
    # A session that is killed from outside is made again: no cell is told that it ended itself.
    assert account.killed == 0
    assert account.replayed > 0
    assert account.answered > 0.95 * CELLS


ANOTHER_UID = 54_321
AS_ANOTHER = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    sys.executable,
    str(ROOT / "tests/as_other_user.py"),
    str(ANOTHER_UID),
]


def prefix_for(user):
    """What to put before a command so that `user` runs it; None where that is not possible."""
    if (user == "root") == (os.geteuid() == 0):
        return []
    if user == "root" or subprocess.run([*AS_ANOTHER, "true"], capture_output=True, check=False).returncode:
        return None
    return AS_ANOTHER


@pytest.mark.parametrize("user", ["root", "unprivileged"])
async def test_every_attack_is_refused_at_the_level_that_the_server_has_measured(redis_url, tmp_path, user):
    if (prefix := prefix_for(user)) is None:
        pytest.skip(
            "needs to run as root"
            if user == "root"
            else "needs another user: to be none, or root that may mount (CAP_SYS_ADMIN)"
        )
    with sandbox_server(tmp_path, redis_url, arguments=("--require-level", "0"), prefix=prefix) as url:
        async with SandboxClient(url) as client:
            (state,) = await client.health()
        outcomes = [outcome async for outcome in suite.run(url)]
    level = state.isolation.level
    assert len(outcomes) > 120
    assert {outcome.attack for outcome in outcomes} == set(suite.attack_names())
    assert [outcome for outcome in outcomes if outcome.wrong and outcome.level <= level] == []
