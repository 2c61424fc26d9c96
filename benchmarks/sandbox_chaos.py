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
import math
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

from benchmarks.sandbox_breaker import Breaker, Pool
from benchmarks.sandbox_cells import Expected, Known
from code_sandbox.client import SandboxClient, SandboxSession
from code_sandbox.errors import SandboxError, SandboxUnavailable
from code_sandbox.wire import ExecuteResult

_PR_SET_CHILD_SUBREAPER = 36
_QUIET_SHARE = 0.1
_TRIES = 12
_PATIENT_S = 60.0
_ENDED_WITHIN_S = 10.0
_TOLD_PROBLEMS = 20


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

    def __init__(self, client: SandboxClient, breaker: Breaker, *, seed: int, backend: str) -> None:
        self._client = client
        self._breaker = breaker
        self.wanted = math.inf
        """Cells at which they end."""
        self._seed = seed
        self._backend = backend
        self._sessions = 0
        self.tally = Tally()

    async def work(self) -> None:
        """One of them."""
        while self.tally.cells < self.wanted:
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
                if self._answered(known, cell, got, session) or cell.ends_session or self.tally.cells >= self.wanted:
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
        users = Users(client, breaker, seed=options.seed, backend=backend)
        breaking = asyncio.create_task(breaker.run())
        work = [asyncio.create_task(users.work()) for _ in range(options.users)]
        quiet = round(_QUIET_SHARE * options.cells)
        while users.tally.cells < options.cells - quiet or breaker.done.total() < options.blows:
            await asyncio.wait(work, timeout=0.1)
            for task in work:
                if task.done():
                    task.result()
        breaker.stop()
        await breaking
        users.wanted = users.tally.cells + quiet
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
    parser.add_argument("--blows", type=int, default=0, help="go on until at least so many, however many cells that takes")
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
