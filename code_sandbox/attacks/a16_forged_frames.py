"""16. Writing to the server in the session's name."""

from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Target, report
from code_sandbox.errors import SandboxError

_SEND = """
import os, stat, struct, msgpack
{prepare}
for number in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            os.write(number, frame)
    except OSError:
        pass
"""
_REPLY = (
    "body = msgpack.packb({{'status': 'ok', 'stdout': 'forged', 'stderr': '', 'result': '{result}', 'error': None, "
    "'images': [], 'more_images': 0, 'nonce': '{nonce}'}})\nframe = struct.pack('>I', len(body)) + body"
)
_CASES = {
    "noise": "frame = os.urandom(4096)",
    "a frame of four gigabytes": "frame = struct.pack('>I', 0xFFFFFFFF) + bytes(4096)",
    "a frame that never ends": "frame = struct.pack('>I', 1 << 20) + bytes(100)",
    "no map": "frame = struct.pack('>I', 1) + b'\\x01'",
    "a reply with another nonce": _REPLY.format(result="forged", nonce="0" * 16),
    "wrong types": "body = msgpack.packb({'status': ['ok'], 'stdout': {}, 'images': 5, 'nonce': None})\nframe = struct.pack('>I', len(body)) + body",
    "a deep nest": "frame = struct.pack('>I', 100_000) + b'\\x91' * 100_000",
    "a map with a list as key": "frame = struct.pack('>I', 4) + b'\\x81\\x91\\x01\\x02'",
}


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """The forged answer must not be taken for a real one, now or for the next cell."""
    for what, prepare in _CASES.items():
        session = await target.session()
        reported, wrong = "", ""
        try:
            first = await session.execute(_SEND.format(prepare=prepare), timeout_s=3)
            second = await session.execute("6 * 7", timeout_s=5)
            reported = report(first)
            if "forged" in (first.stdout, first.result, second.stdout, second.result) or second.result != "42":
                wrong = f"the next cell answers {second.result or second.stdout!r} instead of 42"
        except SandboxError as error:
            wrong = f"no result: {error}"
        yield AttackOutcome(__name__.rsplit(".", 1)[1], what, 1, reported, wrong or await target.harm())
        await session.close()
