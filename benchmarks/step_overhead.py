"""Which share of an RL step is ours: from a run's own records, and by doing its last step's work again, piece by piece.

    python -m benchmarks.step_overhead RUN        RUN: the folder of an RL run, such as runs/quickstart/rl

Generation outside episodes (handing out prompts, verl's post-processing, the sampler's poll) is the time that verl measures
for generation less the time from the first episode's start to the last one's end. The rest is done again on this machine:
loop (what an episode takes beyond the model, its tools and waiting), recorder, store of images, sizing, pixels.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from agent.images import ImageFile
from agent.recorder import Recorder, RecordSettings
from agent.records import Rollout
from agent.trajectory import read_rollouts


def _images(records: list[Rollout]) -> list[ImageFile]:
    found: list[ImageFile] = []
    for record in records:
        for message in (*record.episode.opening, *(turn.observation for turn in record.episode.turns if turn.observation)):
            found += message.images
    return found


def _cpu_s(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _record(records: list[Rollout]) -> None:
    async def write(directory: Path) -> None:
        recorder = Recorder(directory, RecordSettings())
        await asyncio.gather(*[recorder.record(record.episode, replace(record.facts, step=1)) for record in records])

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(write(Path(directory)))


def _repeat(records: list[Rollout], model: str) -> dict[str, float]:
    """CPU seconds of each piece for one step."""
    from transformers import AutoProcessor

    from reinforcement_learning.verl_adapter.image_store import ImageRef, ImageStore
    from reinforcement_learning.verl_adapter.images import ImageReferences
    from reinforcement_learning.verl_adapter.pixels import PixelSource, pack_refs

    processor = AutoProcessor.from_pretrained(model)
    images = _images(records)
    inside = [
        record.episode.wall_s - sum(turn.reply_s + turn.tool_s + turn.waited_s for turn in record.episode.turns)
        for record in records
    ]
    found = {"episode loop": sum(max(0.0, seconds) for seconds in inside), "recorder": _cpu_s(lambda: _record(records))}
    with tempfile.TemporaryDirectory() as directory:
        store = ImageStore(Path(directory))
        sizer = ImageReferences(processor, step=1)
        refs: list[ImageRef] = []
        found["sizing"] = _cpu_s(lambda: refs.extend(sizer(image)[0] for image in images))
        found["store, written"] = _cpu_s(lambda: asyncio.run(sizer.store(store)))
        source = PixelSource(processor.image_processor, store)
        # Once on the trainer's rank; vLLM's process decodes the same files again, which is not counted here.
        found["store, read, and pixels"] = _cpu_s(lambda: [source.pixel_values(pack_refs([ref])) for ref in refs])
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps: dict[int, list[Rollout]] = {}
    for record in read_rollouts(run / "rollouts"):
        steps.setdefault(record.facts.step or 0, []).append(record)
    outside, whole = [], []
    for row in rows:
        step = int(row["training/global_step"])
        episodes = [record.episode for record in steps.get(step, [])]
        if not episodes:
            continue
        span = max(e.started_at + e.wall_s for e in episodes) - min(e.started_at for e in episodes)
        rest = row["timing_s/gen"] - span
        generation, seconds = row["timing_s/gen"], row["timing_s/step"]
        print(f"step {step}: {seconds:.1f} s, generation {generation:.1f} s, {rest:.2f} s of it outside episodes")
        # The first step also loads, compiles and connects.
        if step > 1:
            outside.append(rest)
            whole.append(row["timing_s/step"])
    model = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))["run"]["model"]
    pieces = {"generation outside episodes": statistics.median(outside), **_repeat(steps[max(steps)], model)}
    step_s = statistics.median(whole)
    for name, seconds in pieces.items():
        print(f"{name:<28} {seconds:7.3f} s  {seconds / step_s:6.1%}")
    print(f"{'ours, of a step':<28} {sum(pieces.values()):7.3f} s  {sum(pieces.values()) / step_s:6.1%} of {step_s:.1f} s")


if __name__ == "__main__":
    main()
