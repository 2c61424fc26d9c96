"""`deepeyes search`: indexes, questions and recordings."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import ToolError
from agent.protocol import render_search_observation
from agent.recipes import parse_override
from agent.search.gateway import open_search
from agent.search.limits import limit_of
from agent.search.providers.local import build_index
from agent.search.recording import Recording
from agent.settings import AgentSettings
from code_sandbox.command_line import print_json, problem_line, sign_of_life

_NAMED = 20
"""Pages that are left out, by name; of the others the number is said."""


def index(source: Path, out: Path | None) -> None:
    """Build or go on building."""
    target = out or source.with_name(f"{source.name}.index")
    started = time.monotonic()

    def progress(count: int) -> None:
        print(f"{count:,} documents, {time.monotonic() - started:.0f} s", file=sys.stderr)

    left_out: list[str] = []
    with sign_of_life(f"reading {source}"):
        count = build_index(source, target, on_progress=progress, skip=left_out.append)
    for what in left_out[:_NAMED]:
        print(f"left out: {what}", file=sys.stderr)
    if left_out:
        print(f"{len(left_out):,} pages were left out", file=sys.stderr)
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{count:,} documents in {target} ({size / 1e6:,.1f} MB)")


async def query(
    text: str,
    provider: str,
    index: Path | None,
    settings: Sequence[str],
    max_hits: int | None,
    *,
    as_json: bool = False,
) -> None:
    """Ask, and print the observation, or as JSON the hits and what they cost.

    Raises:
        ToolError: The query is longer than the provider takes; a model would read the message.
        ValueError: A setting of the provider is missing or wrong.
    """
    block: dict[str, Any] = {"provider": provider} | dict(parse_override(setting) for setting in settings)
    if index is not None:
        block["path"] = index
    try:
        search = open_search(block)
    except ValidationError as error:
        raise ValueError(_wrong(error)) from error
    if search is None:
        raise ValueError("mode=off asks nobody")
    try:
        if problem := limit_of(block).problem(text):
            raise ToolError(problem)
        results = await search.search(text, max_hits=max_hits or AgentSettings().max_hits)
        calls, usd = await search.spent()
    finally:
        await search.aclose()
    if as_json:
        print_json({"results": [asdict(one) for one in results], "counters": search.counters, "calls": calls, "usd": usd})
        return
    print(render_search_observation(text, results).text)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(search.counters.items()))
    print(f"[{counts}; {calls} calls, ${usd:.3f} spent]", file=sys.stderr)


def _wrong(error: ValidationError) -> str:
    def how(problem: Any) -> str:
        if problem["type"] != "missing":
            return ""
        name = problem["loc"][-1]
        return " (--index FILE, which `deepeyes search index` makes)" if name == "path" else f" (--set {name}=VALUE)"

    return "; ".join(problem_line(problem, how(problem)) for problem in error.errors())


def stats(path: Path, *, as_json: bool = False) -> None:
    """Print what a recording holds."""
    recording = Recording(path, writable=False)
    found = recording.stats()
    recording.close()
    if as_json:
        print_json(found)
        return

    def day(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")

    for row in found["entries"]:
        print(f"{row['provider']:14} {row['kind']:7} {row['entries']:>9,}   {day(row['first'])} to {day(row['last'])} UTC")
    print(f"{found['images']:,} images, {found['image_bytes'] / 1e6:,.1f} MB; {found['calls']:,} calls, ${found['usd']:.2f}")


def export(path: Path, out: Path | None) -> None:
    """Write JSON lines."""
    recording = Recording(path, writable=False)
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in recording.export())
    if out is None:
        sys.stdout.writelines(lines)
    else:
        with out.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    recording.close()


def merge(target: Path, sources: Sequence[Path]) -> None:
    """Take over entries; print what came of it."""
    into = Recording(target, writable=True)
    for path in sources:
        other = Recording(path, writable=False)
        added, differing = into.merge(other)
        other.close()
        print(f"{path}: {added:,} added, {differing:,} kept as they were although they differ")
    into.close()
