"""11. Links, devices, pipes and names that lead somewhere else."""

from collections.abc import AsyncIterator

import httpx

from code_sandbox.attacks.suite import AttackOutcome, Attempt, Target

_LINKS = """
import os
for make in (os.symlink, os.link):
    for target in ("/etc/passwd", "/etc/shadow", "/proc/1/environ", "../../../../../../etc/hosts"):
        try:
            make(target, "link")
            if open("link").read():
                breach(make.__name__, target)
        except OSError:
            pass
        finally:
            if os.path.lexists("link"):
                os.remove("link")
"""
_DEVICES = """
import os, stat
for kind, device in ((stat.S_IFCHR, os.makedev(1, 1)), (stat.S_IFBLK, os.makedev(254, 0)), (stat.S_IFBLK, os.makedev(8, 0))):
    try:
        os.mknod("device", kind | 0o666, device)
        breach("device node")
    except OSError as refused:
        print(refused)
"""
_IMAGE = """
import os
before = image_1.tobytes()
for number in range(3, 64):
    for path in (f"/proc/self/fd/{number}", f"/dev/fd/{number}"):
        try:
            if os.pread(number, 4, 0) != b"\\x89PNG":
                continue
            with open(path, "r+b") as file:
                file.write(b"x")
            breach("wrote into the image that other sessions share")
        except OSError:
            pass
"""
_OUTPUT = """
import os
# What stands behind stdout is a file; a pipe that nobody reads in its place must not hold the server up.
os.mkfifo("pipe")
for name in ("../output", "output"):
    try:
        os.remove(name)
        os.mkfifo(name)
    except OSError as refused:
        print(refused)
"""
_SYSTEM = """
import os, sys
for path in ("/usr/bin/attack", "/usr/lib/attack.so", os.path.join(sys.prefix, "attack"), os.path.join(os.path.dirname(os.__file__), "attack.py"), "/attack", "/dev/attack", "/proc/attack"):
    try:
        open(path, "w").close()
        breach(path)
    except OSError:
        pass
"""
ATTEMPTS = (
    Attempt("symbolic and hard links", _LINKS),
    Attempt("device nodes", _DEVICES),
    Attempt("writing into a shared image", _IMAGE, reported=("ok", "NameError")),
    Attempt("a pipe in the place of the output", _OUTPUT),
    Attempt("writing into the interpreter", _SYSTEM),
)


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Names that a caller chooses."""
    name = __name__.rsplit(".", 1)[1]
    async with httpx.AsyncClient(base_url=target.url, timeout=10) as http:
        for what, call in (
            ("../ as a session", http.post("/v1/sessions", json={"session_id": "../../etc"})),
            ("../ as an image", http.post("/v1/sessions", json={"session_id": "a", "images": ["../../etc/passwd"]})),
            ("../ as an upload", http.put("/v1/blobs/..%2F..%2Fetc%2Fpasswd", content=b"x")),
            ("an upload under another's hash", http.put("/v1/blobs/" + "0" * 64, content=target.image)),
        ):
            reply = await call
            wrong = "" if reply.status_code in (401, 404, 405, 422) else f"answered {reply.status_code}"
            yield AttackOutcome(name, what, 1, f"HTTP {reply.status_code}", wrong or await target.harm())
