"""22. The same random numbers in every session."""

from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target

_DRAWS = {
    "random": "import random; random.random()",
    "numpy": "import numpy; float(numpy.random.rand())",
    "numpy's generator": "import numpy; float(numpy.random.default_rng().random())",
    "urandom": "import os; os.urandom(8).hex()",
    "uuid": "import uuid; str(uuid.uuid4())",
    "secrets": "import secrets; secrets.token_hex(8)",
    "names of temporary files": "import tempfile; tempfile.mktemp()",
}
_SESSIONS = 4


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Sessions are forks of one process, and a fork inherits the state of its generators."""
    sessions = [await target.session() for _ in range(_SESSIONS)]
    for what, code in _DRAWS.items():
        drawn = {(await session.execute(code)).result for session in sessions}
        wrong = "" if len(drawn) == _SESSIONS else f"{_SESSIONS} sessions drew {sorted(drawn)}"
        yield AttackOutcome(__name__.rsplit(".", 1)[1], what, 1, "ok", wrong)
    for session in sessions:
        await session.close()
