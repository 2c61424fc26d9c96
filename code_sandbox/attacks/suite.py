"""Runs the attacks of this folder against a server by its URL and says what held.

An attack is a module with `ATTEMPTS`. Most are cells: a cell that gets what it must not get prints BREACH. What a cell cannot
do by itself is an `async def attempts(target)` that yields outcomes. After every attempt the server and another session must
still answer. The first 23 follow our survey of sandboxes (fork bombs to thread pools after a fork).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import io
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx
from PIL import Image

from code_sandbox.client import SandboxClient, SandboxSession
from code_sandbox.errors import SandboxError, SandboxUnavailable, SessionLost
from code_sandbox.wire import CellError, CellImage, ExecuteResult, Health

_SIBLING_WITHIN_S = 10.0
_PRELUDE = "def breach(*what): print('BREACH', *what)\n"
LEGACY_ROUTES = ("/jupyter_sandbox", "/run_jupyter")
"""Of servers that have nothing else; attacks that need more than cells are left out there."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One cell that must not succeed.

    Args:
        name: Short, for the table.
        code: Calls `breach(...)`, or prints BREACH, when it has got what it must not get.
        level: From which level of isolation on it must be refused.
        timeout_s: Of the cell.
        reported: What may be reported: "ok", "timeout", "killed", or an exception's name; empty for anything.
        check: Looks at the result; returns what is wrong with it, or None.
        late_s: How much longer than `timeout_s` the answer may take.
        unbounded: It would harm the machine if it were not refused; left out below its level.
    """

    name: str
    code: str
    level: int = 1
    timeout_s: float = 10.0
    reported: tuple[str, ...] = ()
    check: Callable[[ExecuteResult], str | None] | None = None
    late_s: float = 15.0
    unbounded: bool = False


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """One line of the table."""

    attack: str
    attempt: str
    level: int
    reported: str
    wrong: str
    """Empty if it was refused as it should be."""
    seconds: float = 0.0


class Target:
    """A server under attack, with a session that must not notice."""

    def __init__(self, url: str, client: SandboxClient, level: int) -> None:
        self.url = url
        self.client = client
        self.level = level
        self._sibling: Session | None = None
        self.image = picture()

    async def session(self) -> Session:
        """A new session with one image."""
        if self.url.endswith(LEGACY_ROUTES):
            return LegacySession(self.url)
        return await self.client.open([self.image])

    async def harm(self) -> str:
        """What has become worse for others; empty if nothing."""
        try:
            async with asyncio.timeout(_SIBLING_WITHIN_S):
                if self._sibling is None:
                    self._sibling = await self.session()
                    await self._sibling.execute("untouched = 20")
                result = await self._sibling.execute("untouched + 1")
        except (SandboxError, TimeoutError) as error:
            self._sibling = None
            return f"another session suffers: {error or type(error).__name__}"
        if result.result != "21" and "21" not in result.stdout:
            self._sibling = None
            return f"another session answers {result.result or result.stdout!r} instead of 21"
        return ""


class LegacySession:
    """A session of a server that speaks only the routes of MultiModal-Jupyter-Sandbox."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._id = uuid.uuid4().hex

    async def execute(self, code: str, *, timeout_s: float = 60.0) -> ExecuteResult:
        """Run a cell; its outcome is read off stderr."""
        try:
            async with httpx.AsyncClient(timeout=timeout_s + 60) as http:
                reply = await http.post(self._url, json={"session_id": self._id, "code": code, "timeout": timeout_s})
                output = reply.raise_for_status().json()["output"]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise SandboxUnavailable(str(error) or type(error).__name__) from error
        stderr = str(output.get("stderr", ""))
        failure = re.search(r"(\w+(?:Error|Exception|Interrupt|Exit))\b", stderr)
        error_ = CellError(name=failure[1], message="", traceback=stderr) if failure else None
        status = "timeout" if "TimeOutError" in stderr else "error" if error_ else "ok"
        images = []
        for text in output.get("images", []):
            data = base64.b64decode(text.rsplit(",", 1)[-1])
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
            images.append(CellImage(mime="image/png", data=data, width_px=width, height_px=height))
        return ExecuteResult(
            status="ok" if status == "ok" else "timeout" if status == "timeout" else "error",
            stdout=str(output.get("stdout", "")),
            stderr=stderr,
            result=str(output.get("result", "")),
            error=error_,
            images=images,
        )

    async def close(self) -> None:
        """Ends with its lease."""


Session = SandboxSession | LegacySession


def picture() -> bytes:
    """An image for the sessions."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def report(result: ExecuteResult) -> str:
    """What a result says happened: "ok", "timeout", "killed", or the exception's name."""
    return result.error.name if result.error is not None and result.status == "error" else result.status


def attack_names() -> list[str]:
    """The names of all attacks, in their order."""
    return sorted(path.stem for path in Path(__file__).parent.glob("a[0-9][0-9]_*.py"))


def load(name: str) -> ModuleType:
    """Raises:
    LookupError: No attack has this name.
    """
    if name not in attack_names():
        raise LookupError(f"no attack {name!r}; there are {', '.join(attack_names())}")
    return importlib.import_module(f"code_sandbox.attacks.{name}")


async def _try(target: Target, attack: str, attempt: Attempt) -> AttackOutcome:
    started = time.monotonic()
    reported, wrong = "", ""
    try:
        session = await target.session()
        try:
            began = time.monotonic()
            result = await session.execute(_PRELUDE + attempt.code, timeout_s=attempt.timeout_s)
            late_s = time.monotonic() - began - attempt.timeout_s
            reported = report(result)
            wrong = _judge(attempt, result, reported, late_s)
        finally:
            with contextlib.suppress(SandboxError):
                await session.close()
    except (SandboxUnavailable, SessionLost) as error:
        reported, wrong = type(error).__name__, f"no result: {error}"
    wrong = wrong or await target.harm()
    return AttackOutcome(attack, attempt.name, attempt.level, reported, wrong, time.monotonic() - started)


def _judge(attempt: Attempt, result: ExecuteResult, reported: str, late_s: float) -> str:
    breaches = [line for line in result.stdout.splitlines() if line.startswith("BREACH")]
    if breaches:
        return breaches[0][:200]
    if attempt.reported and reported not in attempt.reported:
        return f"reported as {reported}, expected {' or '.join(attempt.reported)}: {result.stderr[-200:]}"
    if attempt.check is not None and (problem := attempt.check(result)):
        return problem
    return f"{late_s:.1f} s late" if late_s > attempt.late_s else ""


async def run(url: str, names: Iterable[str] = (), *, level: int | None = None) -> AsyncIterator[AttackOutcome]:
    """Attack a server, one attempt after the other.

    Args:
        url: Of a server, or of a legacy route.
        names: Of attacks; all by default.
        level: Of isolation to hold it to; by default what it says of itself.

    Raises:
        SandboxUnavailable: It does not answer at the beginning.
        LookupError: A name is unknown.
    """
    modules = [(name, load(name)) for name in (names or attack_names())]
    legacy = url.endswith(LEGACY_ROUTES)
    async with SandboxClient(url, wait_s=20.0) as client:
        if level is None:
            states: Sequence[Health] = [] if legacy else await client.health()
            level = states[0].isolation.level if states else 1
        target = Target(url, client, level)
        if harm := await target.harm():
            raise SandboxUnavailable(f"{url} does not work before it is attacked: {harm}")
        for name, module in modules:
            for attempt in getattr(module, "ATTEMPTS", ()):
                if attempt.level <= level or not attempt.unbounded:
                    yield await _try(target, name, attempt)
            if hasattr(module, "attempts") and not legacy:
                async for outcome in module.attempts(target):
                    yield outcome
