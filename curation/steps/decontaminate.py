"""Rows that an evaluation set holds, too, are dropped or marked (evaluation/analysis/contamination.py)."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agent.data_folders import data_folder
from curation.errors import CurationError
from curation.folders import StepOutcome
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work
from evaluation.analysis.contamination import ComparedText, benchmark_entries, check
from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.runs.folder import checksum
from evaluation.suite import find_data


class DecontaminateSettings(Strict):
    """Against which sets, and what counts as the same."""

    benchmarks: tuple[str, ...] | dict[str, Path] = Field(min_length=1)
    """By name, their files as the evaluation finds them; or name -> file."""
    on_hit: Literal["drop", "mark"] = "drop"
    scope: Literal["image", "question", "image_or_question", "auto"] = "auto"
    """`auto` compares images, and questions alone of rows without an image: "What colour is the car?" is asked of many."""
    max_distance: int = Field(4, ge=0, le=16)
    """Bits of 64 of an image's perceptual hash that may differ."""
    min_share: float = Field(0.8, gt=0, le=1)
    """Of a row's runs of five words that occur in one question of the evaluation."""


SETTINGS = DecontaminateSettings
CODE = ("evaluation.analysis.contamination",)


def _files(settings: DecontaminateSettings) -> dict[str, Path]:
    """Name -> file.

    Raises:
        CurationError: An unknown benchmark, or no file of it.
    """
    files = {}
    given = settings.benchmarks if isinstance(settings.benchmarks, dict) else dict.fromkeys(settings.benchmarks)
    for name, path in given.items():
        try:
            found = path or find_data(load_benchmark(name), data_folder("eval"))
        except LookupError as error:
            raise CurationError(f"decontaminate: {error.args[0]}") from error
        if found is None or not found.exists():
            place = f"at {path}" if path else f"in {data_folder('eval')}"
            raise CurationError(
                f"decontaminate: no file of {name} {place}; get it with "
                f"`deepeyes data fetch {name}`, or give its path as benchmarks: {{{name}: FILE}}"
            )
        files[name] = found
    return files


def key_of(work: Work) -> dict[str, Any]:
    """What the evaluation sets are."""
    return {"sets": {name: checksum(path) for name, path in _files(work.step.settings).items()}}


async def apply(work: Work) -> StepOutcome:
    """Compare."""
    return await asyncio.to_thread(_compare, work)


def _compare(work: Work) -> StepOutcome:
    settings: DecontaminateSettings = work.step.settings
    hits: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for name, path in _files(settings).items():
        try:
            evaluated = list(benchmark_entries(name, path))
        except (BenchmarkError, OSError) as error:
            raise CurationError(f"decontaminate: {name}: {error}") from error
        rows = (
            ComparedText(row.key, row.question, tuple(work.library.get(image) for image in row.images)) for row in work.rows
        )
        with_images = {row.key for row in work.rows if row.images}
        # Rows are what is looked for: each has its own finding, and not only the one that an item is closest to.
        for found in check(rows, evaluated, max_distance=settings.max_distance, min_share=settings.min_share):
            wanted = (
                ("image" if found.item_id in with_images else "question") if settings.scope == "auto" else settings.scope
            )
            if found.kind in wanted:
                hits[found.item_id].append(f"{name} {found.train} by {found.kind} ({found.closeness})")
                counts[name] += 1
    kept, dropped = list[CuratedRow](), list[tuple[CuratedRow, str]]()
    for row in work.rows:
        if row.key not in hits:
            kept.append(row)
        elif settings.on_hit == "mark":
            kept.append(replace(row, facts={**row.facts, "contaminated": hits[row.key]}))
        else:
            dropped.append((row, f"in an evaluation set: {'; '.join(hits[row.key])}"))
    return StepOutcome(kept=kept, dropped=dropped, notes={"hits": dict(counts)})
