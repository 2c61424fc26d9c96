"""The process that sessions are forked from: no session ever comes to stand for another one."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from code_sandbox.server.cells import Cell
from code_sandbox.server.kernel_pool import KernelPool
from code_sandbox.server.settings import ServerSettings

pytestmark = pytest.mark.services

CANCELLED = 500
SETTLED = 5


@pytest.fixture
async def pool():
    # Not below pytest's folder, which is for this user only: sessions run as others.
    root = Path(tempfile.mkdtemp(prefix="dsb-test-"))
    pool = KernelPool(ServerSettings(spare_kernels=0), root)
    await pool.zygote.start()
    yield pool
    await pool.stop()
    shutil.rmtree(root)


async def opened(pool):
    kernel = await pool.take()
    await kernel.open([], seed=0, timeout_s=60)
    return kernel


async def ask(kernel, code, timeout_s=30.0):
    return await kernel.execute(Cell(code, timeout_s=timeout_s, max_chars=1000, interrupt_grace_s=10.0))


async def count_of_sessions(pool, expected):
    """How many live, once those that are being ended have ended."""
    for _ in range(100):
        alive = [child for child in psutil.Process(pool.zygote.pid).children() if child.status() != psutil.STATUS_ZOMBIE]
        if len(alive) == expected:
            break
        await asyncio.sleep(0.1)
    return len(alive)


async def test_five_hundred_cancelled_opens_give_no_session_the_signals_answers_or_users_of_another_one(pool):
    rng = random.Random(0)
    settled = [await opened(pool) for _ in range(SETTLED)]
    for number, kernel in enumerate(settled):
        await ask(kernel, f"import time; mine = {number}")
    stopped = False

    async def work(number, kernel):
        turns = 0
        while not stopped:
            output = await ask(kernel, "sum(range(100_000)); mine")
            assert (output.status, output.result) == ("ok", str(number))
            # The signal that ends this cell is for this session alone.
            output = await ask(kernel, "time.sleep(60)", timeout_s=0.05)
            assert (output.status, output.state_lost) == ("timeout", False)
            turns += 1
        return turns

    working = [asyncio.create_task(work(number, kernel)) for number, kernel in enumerate(settled)]
    left, openings = CANCELLED, []
    while left:
        burst = [asyncio.create_task(pool.take()) for _ in range(min(left, rng.randint(1, 24)))]
        left -= len(burst)
        await asyncio.sleep(rng.random() * 0.03)
        for opening in burst:
            opening.cancel()
            await asyncio.sleep(0)
        openings += await asyncio.gather(*burst, return_exceptions=True)
    finished = [opening for opening in openings if not isinstance(opening, BaseException)]
    await asyncio.gather(*(kernel.kill() for kernel in finished))
    stopped = True
    assert all(turns > 0 for turns in await asyncio.gather(*working))
    assert await count_of_sessions(pool, SETTLED) == SETTLED

    one, other = await opened(pool), await opened(pool)
    if pool.zygote.layers.uid_base:
        uid = int((await ask(one, "import os; os.getuid()")).result)
        assert uid - pool.zygote.layers.uid_base < 100, "users of cancelled sessions are not given back"
    await one.kill()
    assert (await ask(other, "1 + 1")).result == "2"
    for number, kernel in enumerate(settled):
        assert not kernel.exited.is_set()
        assert (await ask(kernel, "mine")).result == str(number)
    for kernel in (*settled, other):
        await kernel.kill()
    assert await count_of_sessions(pool, 0) == 0


async def test_a_reply_that_fits_no_request_ends_the_zygote_and_all_that_it_has_forked(pool):
    session = await opened(pool)
    first = pool.zygote.pid
    # As if an earlier reply had been left in the socket.
    answer = pool.zygote._ask

    async def stale(control, body, connection):
        reply, descriptors = await answer(control, body, connection)
        pool.zygote._ask = answer
        return reply | {"number": reply["number"] - 1}, descriptors

    pool.zygote._ask = stale
    fresh = await opened(pool)
    assert pool.zygote.pid != first
    await asyncio.wait_for(session.exited.wait(), 10)
    assert (await ask(fresh, "1 + 1")).result == "2"
    await fresh.kill()
    await session.kill()


async def test_a_zygote_that_was_stopped_goes_on_and_its_sessions_never_notice(pool):
    session = await opened(pool)
    first = pool.zygote.pid
    os.kill(first, signal.SIGSTOP)
    other = await asyncio.wait_for(opened(pool), 20)
    assert pool.zygote.pid == first
    assert (await ask(session, "1 + 1")).result == (await ask(other, "1 + 1")).result == "2"
    await session.kill()
    await other.kill()


async def test_when_the_zygote_is_killed_the_next_open_starts_another_one(pool):
    session = await opened(pool)
    os.kill(pool.zygote.pid, signal.SIGKILL)
    fresh = await opened(pool)
    await asyncio.wait_for(session.exited.wait(), 10)
    assert (await ask(fresh, "1 + 1")).result == "2"
    await fresh.kill()
    await session.kill()
