"""19. Taking all the processor time from others."""

import asyncio
import time
from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target, report

_HOG = """
import os, time
deadline = time.time() + 5
for _ in range(12):
    if os.fork() == 0:
        while time.time() < deadline: pass
        os._exit(0)
while time.time() < deadline: pass
"""
_SLOWEST_S = 2.0


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Thirteen busy processes of one session, and cells of another meanwhile."""
    hog, other = await target.session(), await target.session()
    await other.execute("1")
    running = asyncio.create_task(hog.execute(_HOG, timeout_s=20))
    await asyncio.sleep(0.5)
    times = []
    while not running.done():
        started = time.monotonic()
        await other.execute("sum(range(10**5))")
        times.append(time.monotonic() - started)
        await asyncio.sleep(0.1)
    result = await running
    slow = sorted(times)[len(times) // 2]
    wrong = "" if slow < _SLOWEST_S else f"a cell of another session took {slow:.1f} s"
    yield AttackOutcome(__name__.rsplit(".", 1)[1], "thirteen busy processes", 1, report(result), wrong or await target.harm())
    await hog.close()
    await other.close()
