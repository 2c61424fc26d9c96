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
_HOOK = """
import sys
worker = sys.modules["code_sandbox.server.worker"]
send = worker._send
def forge(connection, message):
    worker._send = send
    {change}
    send(connection, message)
worker._send = forge
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
_HOOKED = {
    "no number of images": "message['more_images'] = float('inf')",
    "fewer images than none": "message['more_images'] = -1",
    "an image of 2**62": "message['images'] = [['image/png', 2**62]]",
    "an error 990 deep": "message['error'] = ['E', eval('[' * 90 + ']' * 90), '']; [message['error'].__setitem__(1, [message['error'][1]]) for _ in range(900)]",
    "bytes for text": "message['stdout'] = b'forged'",
    "sixteen million empty lists": "message['images'] = [[]] * 16_000_000",
    "three million images": "message['images'] = [['image/png', b'']] * 3_000_000",
    "a hundred million characters": "message['stdout'] = '\\x1b[31m\\r' * 15_000_000",
    "a picture of a million empty parts": "message['images'] = [['image/png', bytes.fromhex('89504e470d0a1a0a0000000d49484452') + bytes(17) + b'\\0\\0\\0\\0tEXt\\0\\0\\0\\0' * 1_000_000]] * 10",
    "nothing but the number": "[message.pop(name) for name in list(message) if name != 'nonce']",
}
"""Changes to a real reply, which has the right number."""
_SPEAK = """
import json
kernel = get_ipython().kernel
output, session = kernel.iopub_thread, kernel.session
def speak(content, *more):
    header, parent = session.msg_header("stream"), kernel.get_parent("shell")["header"]
    parts = [json.dumps(header, default=str).encode(), json.dumps(parent, default=str).encode(), b"{{}}", content]
    frames = [b"stream", b"<IDS|MSG>", session.sign(parts), *parts, *more]
    output.schedule(lambda: output.socket.send_multipart(frames))
{speech}
"""
_SPEECHES = {
    "a message of millions of lists": "speak(b'[' + b'[],' * 15_000_000 + b'1]')",
    "a message nested without end": "speak(b'[' * 40_000_000)",
    "a message of one number": "speak(b'1' * 60_000_000)",
    "a message of escapes": "speak(json.dumps({'name': 'stdout', 'text': '\\\\,' * 16_000_000}).encode())",
    "a message of three million parts": "speak(b'{}', *[b''] * 3_000_000)",
    "a message of 200 megabytes": "speak(json.dumps('a' * 200_000_000).encode())",
    "two gigabytes of pictures": "for _ in range(40): speak(json.dumps({'data': {'image/png': 'A' * 50_000_000}}).encode())",
    "sixty megabytes beside the JSON": "speak(b'{\"data\": {\"image/png\": 0}}', bytes(60_000_000))",
    "an image that is not there": "speak(b'{\"data\": {\"image/png\": 5}}', b'x')",
    "a map of 290,000 names": "speak(b'{' + b','.join(b'\"%d\":1' % n for n in range(290_000)) + b'}')",
    "a kernel that packs what it likes": "session.pack = lambda content: b'[' + b'[],' * 5_000_000 + b'1]'",
}
"""What a Jupyter kernel says on its own sockets; where there is no kernel, these cells find none."""


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """The forged answer must not be taken for a real one, now or for the next cell, and it is an answer, no outage."""
    programs = {what: _SEND.format(prepare=prepare) for what, prepare in _CASES.items()}
    programs |= {what: _HOOK.format(change=change) for what, change in _HOOKED.items()}
    programs |= {what: _SPEAK.format(speech=speech) for what, speech in _SPEECHES.items()}
    for what, program in programs.items():
        session = await target.session()
        reported, wrong = "", ""
        try:
            first = await session.execute(program, timeout_s=3)
            second = await session.execute("6 * 7", timeout_s=5)
            reported = report(first)
            if "forged" in (first.stdout, first.result, second.stdout, second.result) or second.result != "42":
                wrong = f"the next cell answers {second.result or second.stdout!r} instead of 42"
        except SandboxError as error:
            wrong = f"no result: {error}"
        yield AttackOutcome(__name__.rsplit(".", 1)[1], what, 1, reported, wrong or await target.harm())
        await session.close()
