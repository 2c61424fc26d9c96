"""15. Rewriting what the session itself runs on. It may break itself, but must not hang or lie about others."""

from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target, report
from code_sandbox.errors import SandboxError

_CASES = {
    "print and stdout": "import builtins, sys\nbuiltins.print = None\nsys.stdout = sys.__stdout__ = None",
    "closed descriptors": "import os\nfor number in range(0, 64):\n    try: os.close(number)\n    except OSError: pass",
    "serialisers": "import json, msgpack\njson.dumps = msgpack.packb = msgpack.unpackb = lambda *a, **k: 1/0",
    "sockets": "import socket\nsocket.socket.sendall = socket.socket.send = lambda *a: 1/0",
    "hooks": "ip = get_ipython()\nfor e in ('pre_run_cell', 'post_run_cell', 'pre_execute', 'post_execute'): ip.events.register(e, lambda *a: 1/0)",
    "the shell": "get_ipython().run_cell = None\nget_ipython().__class__.run_cell = None",
    "the display": "get_ipython().display_formatter = None\nget_ipython().displayhook = None",
    "tracing": "import sys, threading\nsys.settrace(lambda *a: 1/0)\nsys.setprofile(lambda *a: 1/0)",
    "imports": "import builtins, sys\nsys.meta_path[:] = []\nsys.modules.clear()",
    "every builtin": "import builtins\nfor name in dir(builtins):\n    try: setattr(builtins, name, None)\n    except Exception: pass",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "atexit and __del__": "import atexit, os, sys\natexit.register(lambda: __import__('time').sleep(999))\nsys.exit(3)",
    "traceback formatting": "class E(Exception):\n    def __str__(self): 1/0\n    __repr__ = __str__\nraise E",
    "an exception that is none": "class E(BaseException): pass\nraise E",
    "SystemExit": "raise SystemExit",
    "GeneratorExit": "raise GeneratorExit",
}


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Break a session, then ask it for more: an answer of any kind must come in time."""
    for what, code in _CASES.items():
        session = await target.session()
        reported, wrong = "", ""
        try:
            reported = report(await session.execute(code, timeout_s=5))
            # The answer to the second may be wrong: the session has only itself to blame. The third must be a new start
            # wherever the process was lost.
            second = await session.execute("1 + 1", timeout_s=5)
            third = await session.execute("1 + 1", timeout_s=5)
            if second.state_lost and third.result != "2":
                wrong = f"after a new start it answers {third.result!r}"
            reported += f", then {report(second)}"
        except SandboxError as error:
            wrong = f"no result: {error}"
        wrong = wrong or await target.harm()
        yield AttackOutcome(__name__.rsplit(".", 1)[1], what, 1, reported, wrong)
        await session.close()
