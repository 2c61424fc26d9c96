"""17. Processes that outlive their session."""

import uuid
from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target, report

_DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sh", ["{mark}", "-c", "sleep 30; true"])
    os._exit(0)
"""
_LOOK = """
import glob
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        if "{mark}" in open(path).read():
            print("BREACH", path)
    except OSError:
        pass
"""


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """A daemon is started, its session closed, and a later session looks for it; what a server measured itself counts too."""
    mark = f"survivor-{uuid.uuid4().hex}"
    session = await target.session()
    result = await session.execute(_DAEMON.format(mark=mark))
    await session.close()
    later = await target.session()
    looked = await later.execute(_LOOK.format(mark=mark))
    await later.close()
    wrong = looked.stdout.strip() if "BREACH" in looked.stdout else ""
    (state,) = await target.client.health()
    if not wrong and "outliving" in state.isolation.allowed:
        wrong = "the server itself has measured that processes outlive their session"
    yield AttackOutcome(__name__.rsplit(".", 1)[1], "a daemon", 2, report(result), wrong or await target.harm())
