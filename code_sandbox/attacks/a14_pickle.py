"""14. Objects that run code when somebody stores or loads them."""

from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target, report

_BOMB = """
log = []
class Bomb:
    def __reduce__(self):
        log.append("reduce")
        return (print, ("BREACH",))
    def __getstate__(self):
        log.append("getstate")
        return {}
    def __del__(self):
        pass
    def __repr__(self):
        return "a bomb"
bomb, bombs = Bomb(), [Bomb() for _ in range(3)]
import builtins
builtins.bomb = bomb
bomb
"""


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Keep such objects over several cells; a server that stores state would have to pickle them."""
    session = await target.session()
    await session.execute(_BOMB)
    await session.execute("x = 1")
    result = await session.execute("print('BREACH' if log else 'kept', log); bomb is builtins.bomb")
    wrong = "" if result.stdout.startswith("kept") and result.result == "True" else f"state was stored: {result.stdout}"
    await session.close()
    yield AttackOutcome(__name__.rsplit(".", 1)[1], "objects with __reduce__", 1, report(result), wrong or await target.harm())
