"""What a step is handed, and how steps are run one after the other."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary, open_library
from agent.loading import load_plugin
from curation.errors import CurationError
from curation.folders import StepFolder, StepOutcome, code_of
from curation.images import Workers
from curation.rows import CuratedRow, digest_rows, write_text
from curation.settings import STEPS, Curation, Step
from curation.sources import read_sources, sources_key
from curation.spending import spent_by_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A step's rows, settings, and where it works."""

    curation: Curation
    step: Step
    rows: Sequence[CuratedRow]
    library: ImageLibrary
    workers: Workers
    """What decodes images."""
    say: Callable[[str], object]

    @property
    def folder(self) -> Path:
        """The step's."""
        return self.curation.directory / self.step.folder


async def run_steps(curation: Curation, *, workers: Workers, say: Callable[[str], object]) -> list[StepFolder]:
    """Run what is not done yet.

    Raises:
        CurationError: A step has nothing left to work on, or cannot do its work.
        CurationStopped: No model answers, or a cap is reached; what was done is kept.
    """
    try:
        library = open_library(curation.file.store)
    except (OSError, ValueError) as error:
        raise CurationError(f"the store {curation.file.store} cannot be used ({error}); give another `store`") from error
    directory = curation.directory
    first = StepFolder(directory / "00_sources")
    with first.locked():
        key = {"settings": sources_key(curation.file.sources), "parent": "", "code": code_of(_module("curation.sources"))}
        if not first.finished(key):
            started = time.monotonic()
            outcome = read_sources(curation.file.sources, library)
            first.write(key, outcome, seconds=time.monotonic() - started, num_in=len(outcome.kept) + len(outcome.dropped))
    done, rows = [first], first.kept()
    say(_line("sources", first))
    _write_facts(curation)
    for step in curation.steps:
        if not rows:
            raise CurationError(f"no row is left before step {step.number}, {step.kind}; {done[-1].path} says why each went")
        folder = StepFolder(directory / step.folder)
        work = Work(curation=curation, step=step, rows=rows, library=library, workers=workers, say=say)
        await _run_step(work, folder)
        rows = folder.kept()
        done.append(folder)
        _write_facts(curation)
        say(_line(f"{step.number} {step.label}", folder))
    return done


def _write_facts(curation: Curation) -> None:
    """What a report cannot see in the steps' folders."""
    facts = {"name": curation.file.name, "store": str(curation.file.store), "models": spent_by_model(curation)}
    write_text(curation.directory / "run.json", json.dumps(facts, indent=1))


async def _run_step(work: Work, folder: StepFolder) -> None:
    module = load_plugin(STEPS, work.step.kind)
    key = step_key(work, module)
    if folder.finished(key):
        return
    started = time.monotonic()
    folder.path.mkdir(parents=True, exist_ok=True)
    if hasattr(module, "gather"):
        # Before the lock: several processes ask models at the same time.
        await module.gather(work)
    with folder.locked():
        if folder.finished(key):
            return
        outcome: StepOutcome = await module.apply(work)
        folder.write(key, outcome, seconds=time.monotonic() - started, num_in=len(work.rows))


def step_key(work: Work, module: Any) -> dict[str, Any]:
    """What a step's result depends on, as plain values of JSON."""
    more = module.key_of(work) if hasattr(module, "key_of") else {}
    key = {
        "settings": {"kind": work.step.kind, "seed": work.curation.file.seed, **more, "own": work.step.said()},
        "parent": digest_rows(work.rows),
        "code": code_of(module, *(_module(name) for name in getattr(module, "CODE", ()))),
    }
    found: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return found


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _line(name: str, folder: StepFolder) -> str:
    found = folder.summary() or {}
    counts = [f"{found.get('in', 0):,} in", f"{found.get('kept', 0):,} kept", f"{found.get('dropped', 0):,} dropped"]
    if found.get("open"):
        counts.append(f"{found['open']:,} open")
    if found.get("waiting"):
        counts.append(f"{found['waiting']:,} answers waiting for a server")
    return f"{name}: {', '.join(counts)}"
