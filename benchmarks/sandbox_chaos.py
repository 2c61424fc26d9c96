"""Who is blamed when things break: cells with a known answer, while servers, zygotes and Redis are killed and stopped.

    python -m benchmarks.sandbox_chaos [--cells 2000] [--backend fork] [--seed 0] [--users 16]

Many sessions run cells through the real client on two servers and one Redis that keeps nothing. Meanwhile, at random times,
something is killed or stopped. About one cell in eight is the model's own fault, of a known kind. Every answer is compared
with what it must be; the last tenth of the cells runs undisturbed. In the end all is stopped, and what is left is counted.
Exits with 1 if anything is wrong. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from PIL import Image, ImageChops

from benchmarks.sandbox_breaker import Breaker, Pool
from code_sandbox.client import SandboxClient, SandboxSession
from code_sandbox.errors import SandboxError, SandboxUnavailable
from code_sandbox.wire import ExecuteResult

_PR_SET_CHILD_SUBREAPER = 36
_FAULT_SHARE = 0.13
_QUIET_SHARE = 0.1
_TRIES = 12
_PATIENT_S = 60.0
_ENDED_WITHIN_S = 10.0
_TOLD_PROBLEMS = 20
_SIDE_PX = 64
_NOISE_TO_THE_SERVER = """
import os, stat
for number in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode): os.write(number, b'\\x00\\x00\\x00\\x04' + os.urandom(4096))
    except OSError: pass
"""
_TOGETHER = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        try:
            data = bytearray(450 << 20)
            data[::4096] = b'x' * len(data[::4096])
            time.sleep(30)
        finally:
            os._exit(0)
time.sleep(30)
"""
_CUT_PICTURE = """
import io
from IPython.display import Image as _File, display
from PIL import Image as _Image
whole = io.BytesIO(); _Image.effect_noise((50, 50), 9).save(whole, 'PNG')
display(_File(data=whole.getvalue()[:70]))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A cell and what is known about its answer."""

    name: str
    code: str
    timeout_s: float = _PATIENT_S
    statuses: tuple[str, ...] = ("ok",)
    result: str | None = None
    """None: not looked at."""
    stdout: str = ""
    error: tuple[str, str] | None = None
    """(name, message)"""
    picture: Image.Image | None = None
    cut_picture: bool = False
    """Whether an image that cannot be read is shown; whoever shows it to the model leaves it out."""
    fault: bool = False
    """Whether it is the model's own."""
    loses_state: bool = False
    ends_session: bool = False
    """Whether nobody knows what later cells do."""

    def differs(self, got: ExecuteResult) -> str:
        """What is wrong about an answer; empty if nothing."""
        if got.status not in self.statuses:
            wanted_status = " or ".join(self.statuses)
            return f"status is {got.status}, not {wanted_status} (state_lost {got.state_lost}): {got.stderr[-200:]}"
        if self.loses_state and not got.state_lost:
            return "the state was not lost"
        if got.status in ("ok", "error") and got.state_lost:
            return f"the state was lost with status {got.status}"
        if self.result is not None and got.result != self.result:
            return f"result is {got.result!r}, not {self.result!r}"
        if got.stdout != self.stdout and not self.fault:
            return f"stdout is {got.stdout!r}, not {self.stdout!r}"
        told = None if got.error is None else (got.error.name, got.error.message)
        if self.error is not None and (told is None or not told[1].startswith(self.error[1]) or told[0] != self.error[0]):
            return f"error is {told}, not {self.error}"
        return "" if self.cut_picture else self._shows_another(got)

    def _shows_another(self, got: ExecuteResult) -> str:
        shown = [Image.open(io.BytesIO(image.data)).convert("RGB") for image in got.images]
        wanted = [] if self.picture is None else [self.picture]
        if [each.size for each in shown] != [each.size for each in wanted]:
            return f"{len(shown)} images instead of {len(wanted)}"
        if any(ImageChops.difference(a, b).getbbox() for a, b in zip(shown, wanted, strict=True)):
            return "the image is another one"
        return ""


FAULTS = (
    Expected(name="segfault", code="import ctypes; ctypes.string_at(0)", statuses=("killed",), loses_state=True, fault=True),
    Expected(name="os._exit", code="import os; os._exit(3)", statuses=("killed",), loses_state=True, fault=True),
    Expected(name="memory", code="x = bytearray(3 << 30)", statuses=("error",), error=("MemoryError", ""), fault=True),
    Expected(name="memory of children", code=_TOGETHER, timeout_s=25, statuses=("killed",), loses_state=True, fault=True),
    Expected(name="endless loop", code="while True: pass", timeout_s=0.7, statuses=("timeout",), fault=True),
    Expected(
        name="loop that cannot be interrupted",
        code="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        timeout_s=0.7,
        statuses=("timeout",),
        loses_state=True,
        fault=True,
    ),
    Expected(name="cut picture", code=_CUT_PICTURE, cut_picture=True, fault=True),
)
_NOISE = {
    "fork": Expected(
        name="noise to the server", code=_NOISE_TO_THE_SERVER, timeout_s=3, statuses=("killed",), fault=True,
        ends_session=True, loses_state=True,
    ),
    "jupyter": Expected(
        name="noise to the server", code=_NOISE_TO_THE_SERVER, timeout_s=3, statuses=("killed", "timeout", "ok"), fault=True,
        ends_session=True,
    ),
}  # fmt: skip


class Known:
    """What a session must hold."""

    def __init__(self, rng: random.Random, backend: str) -> None:
        self._rng = rng
        self._backend = backend
        self.image = Image.frombytes("RGB", (_SIDE_PX, _SIDE_PX), rng.randbytes(3 * _SIDE_PX * _SIDE_PX))
        self.forget()

    def forget(self) -> None:
        """The state is that of a new process."""
        self._total: int | None = None
        self._note = ""
        self._drawn = ""

    def next_cell(self) -> Expected:
        """Any cell."""
        if self._rng.random() < _FAULT_SHARE:
            return self._rng.choice((*FAULTS, _NOISE[self._backend]))
        if self._total is None:
            return Expected(name="first", code="total = 0")
        k, word = self._rng.randint(1, 1000), f"{self._rng.getrandbits(48):x}"
        width, height = self._rng.randint(30, _SIDE_PX), self._rng.randint(30, _SIDE_PX)
        added = str(self._total + k)
        return self._rng.choice(
            (
                Expected(name="count", code=f"total += {k}\ntotal", result=added),
                Expected(
                    name="slow", code=f"import time; time.sleep(0.7)\ntotal += {k}\ntotal", timeout_s=4.0, result=added
                ),
                Expected(
                    name="file",
                    code=f"open('note', 'a').write({word!r})\nprint(open('note').read())",
                    stdout=f"{self._note}{word}\n",
                ),
                Expected(
                    name="picture",
                    code=f"image_1.crop((0, 0, {width}, {height}))",
                    picture=self.image.crop((0, 0, width, height)),
                ),
                Expected(
                    name="raises",
                    code=f"total += {k}\nraise ValueError({word!r})",
                    statuses=("error",),
                    error=("ValueError", word),
                ),
                Expected(name="kept", code="drawn", result=self._drawn)
                if self._drawn
                else Expected(name="draw", code="import random; drawn = random.random()\ndrawn"),
            )
        )

    def happened(self, cell: Expected, got: ExecuteResult) -> None:
        """A cell has had its answer."""
        if got.state_lost:
            self.forget()
        elif cell.name == "first":
            self._total = 0
        elif cell.name in ("count", "slow"):
            self._total = int(cell.result or 0)
        elif cell.name == "raises" and self._total is not None:
            self._total += int(cell.code.split()[2])
        elif cell.name == "file":
            self._note = cell.stdout.rstrip("\n")
        elif cell.name == "draw":
            self._drawn = got.result


@dataclass(slots=True)
class Tally:
    """What was seen."""

    cells: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    wrong: list[str] = field(default_factory=list)
    """Wrong answers."""
    blamed: list[str] = field(default_factory=list)
    """Outages told as the model's fault."""
    excused: list[str] = field(default_factory=list)
    """The model's faults told as outages, and outages while nothing was broken."""


class Users:
    """Sessions one after the other, several at a time, until enough cells were answered."""

    def __init__(self, client: SandboxClient, breaker: Breaker, *, cells: int, seed: int, backend: str) -> None:
        self._client = client
        self._breaker = breaker
        self._wanted = cells
        self._seed = seed
        self._backend = backend
        self._sessions = 0
        self.tally = Tally()

    async def work(self) -> None:
        """One of them."""
        while self.tally.cells < self._wanted:
            self._sessions += 1
            rng = random.Random(f"{self._seed}/{self._sessions}")
            known = Known(rng, self._backend)
            again: Expected | None = None
            for _ in range(_TRIES):
                again = await self._session(known, rng, again)
                if again is None:
                    break
            else:
                self.tally.excused.append(f"{again.name}: an outage {_TRIES} times" if again else "")

    async def _session(self, known: Known, rng: random.Random, first: Expected | None) -> Expected | None:
        """Play one session. Returns the fault that an outage has kept from its answer, to be tried again."""
        known.forget()
        file = io.BytesIO()
        known.image.save(file, "PNG")
        cell = first
        session: SandboxSession | None = None
        calm = self._breaker.calm
        try:
            session = await self._client.open([file.getvalue()])
            for number in range(rng.randint(3, 12)):
                cell = first if number == 0 and first is not None else known.next_cell()
                calm = self._breaker.calm
                try:
                    got = await session.execute(cell.code, timeout_s=cell.timeout_s)
                except SandboxUnavailable as error:
                    # The cell may have run; the session, if it goes on, goes on without it.
                    self._outage(error, cell, calm)
                    if cell.fault or rng.random() < 0.5:
                        return cell if cell.fault else None
                    continue
                if self._answered(known, cell, got, session) or cell.ends_session or self.tally.cells >= self._wanted:
                    return None
        except SandboxError as error:
            self._outage(error, cell, calm)
            return cell if cell is not None and cell.fault else None
        finally:
            if session is not None:
                with contextlib.suppress(SandboxError):
                    await session.close()
        return None

    def _outage(self, error: SandboxError, cell: Expected | None, calm: bool) -> None:
        self.tally.outages[type(error).__name__] += 1
        if calm and self._breaker.calm:
            self.tally.excused.append(f"{cell.name if cell else 'open'}, with nothing broken: {error}")

    def _answered(self, known: Known, cell: Expected, got: ExecuteResult, session: SandboxSession) -> bool:
        """Count an answer; whether it was wrong."""
        tally = self.tally
        tally.cells += 1
        tally.replayed += got.replayed
        if cell.fault:
            tally.faults[cell.name] += 1
        problem = cell.differs(got)
        known.happened(cell, got)
        if problem:
            stamp = f"{self._breaker.age_s:.1f} s"
            line = f"{cell.name} at {stamp} in {session.session_id} on {session.url}: {problem}; {cell.code[:60]!r}"
            (tally.blamed if got.status in ("killed", "timeout") else tally.wrong).append(line)
        return bool(problem)


def leftovers(folder: Path, mounts: set[str]) -> list[str]:
    """What should not be there once everything has ended; all that we started are our children now, or their children."""
    deadline = time.monotonic() + _ENDED_WITHIN_S
    while (processes := _alive()) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [f"process {process.pid}: {' '.join(process.cmdline())[:80]}" for process in processes]
    found += [f"mount {line}" for line in _mounts() - mounts]
    return found + [f"folder {path.name}" for path in folder.iterdir()]


def _alive() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _mounts() -> set[str]:
    return set(Path("/proc/mounts").read_text().splitlines())


@contextlib.contextmanager
def _own_temporary_folder(directory: Path) -> Iterator[Path]:
    """Only what our servers make lies in it."""
    folder = directory / "tmp"
    folder.mkdir()
    for path in (directory, folder):
        # Sessions are other users, who pass through.
        path.chmod(0o711)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


async def disturbed(pool: Pool, options: argparse.Namespace, backend: str) -> tuple[Tally, Breaker]:
    """Run all cells, the last of them in peace."""
    breaker = Breaker(pool, seed=options.seed, every_s=options.every_s)
    async with SandboxClient(pool.urls, wait_s=_PATIENT_S) as client:
        users = Users(client, breaker, cells=options.cells, seed=options.seed, backend=backend)
        breaking = asyncio.create_task(breaker.run())
        work = [asyncio.create_task(users.work()) for _ in range(options.users)]
        while users.tally.cells < (1 - _QUIET_SHARE) * options.cells and not all(task.done() for task in work):
            await asyncio.sleep(0.1)
        breaker.stop()
        await breaking
        await asyncio.gather(*work)
    return users.tally, breaker


def report(backend: str, tally: Tally, breaker: Breaker, left: list[str]) -> bool:
    """Print what was seen; whether all is well."""
    rows = (
        ("broken", ", ".join(f"{number} x {name}" for name, number in sorted(breaker.done.items()))),
        ("outages", ", ".join(f"{number} {name}" for name, number in sorted(tally.outages.items())) or "0"),
        ("cells run again unseen", tally.replayed),
        ("the model's own faults", ", ".join(f"{number} {name}" for name, number in sorted(tally.faults.items()))),
        ("**wrong answers**", len(tally.wrong)),
        ("**outages shown to the model as its fault**", len(tally.blamed)),
        ("**model faults counted as outages**", len(tally.excused)),
        ("**processes, mounts and folders left**", len(left)),
    )
    print(f"\n| {backend}, uid {os.geteuid()} | {tally.cells:,} cells in {breaker.age_s:.0f} s |\n| --- | --- |")
    print("\n".join(f"| {name} | {value} |" for name, value in rows), flush=True)
    problems = [*tally.wrong, *tally.blamed, *tally.excused, *left]
    for line in problems[:_TOLD_PROBLEMS]:
        print(f"- {line}")
    return not problems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Kill and stop what runs cells, and see who is blamed.")
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--backend", action="append", choices=("fork", "jupyter"), help="both by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=16, help="sessions at once")
    parser.add_argument("--every-s", type=float, default=1.0, help="between two blows, on average")
    parser.add_argument("--keep-logs", type=Path, help="folder for what the servers wrote")
    options = parser.parse_args()
    # Whatever loses its parent becomes our child, and cannot hide.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    well = True
    for backend in options.backend or ("fork", "jupyter"):
        with tempfile.TemporaryDirectory() as directory, _own_temporary_folder(Path(directory)) as folder:
            mounts = _mounts()
            logs = (options.keep_logs or Path(directory)) / backend
            with Pool(logs, backend) as pool:
                tally, breaker = asyncio.run(disturbed(pool, options, backend))
            well &= report(backend, tally, breaker, leftovers(folder, mounts))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
