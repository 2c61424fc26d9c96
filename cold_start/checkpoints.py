"""Which checkpoints of LLaMA-Factory were written to their end, and which run is finished.

A save writes, in this order: the weights with their index, the tokenizer, the optimiser (one file, or DeepSpeed's
`global_stepN` and then `latest`), scheduler and random states, `trainer_state.json`; then older checkpoints are
removed; then LLaMA-Factory's callback writes `chat_template.jinja` and, last of all, `processor_config.json`.
Source: transformers 5.5.4, trainer.py (_save_checkpoint) and processing_utils.py (save_pretrained); LLaMA-Factory
0.9.5, train/callbacks.py.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")
_RANK_FILE = re.compile(r"_rank_(\d+)_.*_(optim|model)_states\.pt$")
_ADAPTER = "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"
INCOMPLETE_PREFIX = "incomplete-"


def checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """All checkpoint folders with their steps, oldest first."""
    found = ((match, path) for path in output_dir.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name)))
    return sorted((int(match[1]), path) for match, path in found if path.is_dir())


def latest_checkpoint(output_dir: Path, *, with_optimizer: bool = True) -> Path | None:
    """The newest checkpoint that was written to its end."""
    for _, path in reversed(checkpoints(output_dir)):
        if what_is_missing(path, with_optimizer=with_optimizer) is None:
            return path
    return None


def what_is_missing(checkpoint: Path, *, with_optimizer: bool = True) -> str | None:
    """The first thing that a checkpoint lacks to go on from it, in words; None if it has everything.

    Args:
        checkpoint: The folder.
        with_optimizer: False for runs that save the model only.
    """
    return next(_missing(checkpoint, with_optimizer), None)


def _missing(checkpoint: Path, with_optimizer: bool) -> Iterator[str]:
    # From the last file written to the first: most unfinished saves are told by the first look.
    for name in ("processor_config.json", "trainer_state.json", "tokenizer_config.json"):
        if _json(checkpoint / name) is None:
            yield name
    if not _has_text(checkpoint / "chat_template.jinja"):
        yield "chat_template.jinja"
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    step = (_json(checkpoint / "trainer_state.json") or {}).get("global_step")
    if match and step != int(match[1]):
        yield f"the trainer's state of step {match[1]} (its trainer_state.json is of step {step})"
    yield from missing_weights(checkpoint)
    if with_optimizer:
        yield from _missing_optimizer(checkpoint)
    for file in checkpoint.glob("rng_state*.pth"):
        if not zipfile.is_zipfile(file):
            yield f"the end of {file.name}"


def missing_weights(folder: Path) -> Iterator[str]:
    """What a model's folder lacks of its configuration and weights, cut files included."""
    if (folder / _ADAPTER).exists():
        names = {_ADAPTER}
    elif (folder / _INDEX).exists():
        index = _json(folder / _INDEX)
        if index is None:
            yield f"the end of {_INDEX}"
            return
        names = set(index.get("weight_map", {}).values())
    else:
        names = {"model.safetensors"}
    if names != {_ADAPTER} and _json(folder / "config.json") is None:
        yield "config.json"
    for name in sorted(names):
        if not (folder / name).is_file():
            yield name
        elif safetensors_size_bytes(folder / name) != (folder / name).stat().st_size:
            yield f"the end of {name}"


def safetensors_header(file: Path) -> dict[str, Any] | None:
    """Names, types, shapes and places of the tensors; None if the file is cut inside its header."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                return None
            header: dict[str, Any] = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error):
        return None
    header.pop("__metadata__", None)
    return header | {"": {"shape": [], "data_offsets": [0, 0], "header_bytes": 8 + length}}


def safetensors_size_bytes(file: Path) -> int | None:
    """How long a weights file says it is."""
    header = safetensors_header(file)
    if header is None:
        return None
    return int(header[""]["header_bytes"]) + max(int(entry["data_offsets"][1]) for entry in header.values())


def _missing_optimizer(checkpoint: Path) -> Iterator[str]:
    single = [checkpoint / name for name in ("optimizer.pt", "optimizer.bin") if (checkpoint / name).exists()]
    if single:
        if not zipfile.is_zipfile(single[0]):
            yield f"the end of {single[0].name}"
    elif (checkpoint / "latest").exists() or list(checkpoint.glob("global_step*")):
        yield from _missing_shards(checkpoint)
    elif not list(checkpoint.glob("optimizer_*")):
        yield "its optimiser (optimizer.pt, or DeepSpeed's global_step folder)"
    scheduler = checkpoint / "scheduler.pt"
    if scheduler.exists() and not zipfile.is_zipfile(scheduler):
        yield "the end of scheduler.pt"
    elif not scheduler.exists() and single:
        yield "scheduler.pt"


def _missing_shards(checkpoint: Path) -> Iterator[str]:
    # DeepSpeed writes `latest` when all ranks have written their parts.
    name = (checkpoint / "latest").read_text(encoding="utf-8").strip() if (checkpoint / "latest").is_file() else ""
    if not name:
        yield "DeepSpeed's `latest`"
        return
    folder = checkpoint / name
    shards = list(folder.glob("*_states.pt"))
    for shard in shards:
        if not zipfile.is_zipfile(shard):
            yield f"the end of {name}/{shard.name}"
    ranks: dict[str, set[int]] = {"optim": set(), "model": set()}
    for shard in shards:
        if match := _RANK_FILE.search(shard.name):
            ranks[match[2]].add(int(match[1]))
    num_ranks = 1 + max(ranks["optim"] | ranks["model"], default=-1)
    if num_ranks == 0 or ranks["optim"] != set(range(num_ranks)):
        yield f"optimiser states of all ranks in {name}"


def is_finished(output_dir: Path) -> bool:
    """Whether training came to its end here: the final model is whole, and no checkpoint says otherwise.

    Whoever deletes the newest checkpoints of a finished run and keeps an older one asks to go on from that one.
    """
    state = _json(output_dir / "trainer_state.json") or {}
    step, max_steps = state.get("global_step"), state.get("max_steps")
    if not isinstance(step, int) or not isinstance(max_steps, int) or step < max_steps:
        return False
    if next(missing_weights(output_dir), None) or _json(output_dir / "processor_config.json") is None:
        return False
    found = checkpoints(output_dir)
    return not found or found[-1][0] == step


def set_aside_incomplete(output_dir: Path, *, newer_than: Path | None) -> list[Path]:
    """Rename checkpoints that were not written to their end, so that neither resuming nor rotation takes them for good.

    Args:
        output_dir: The run's folder.
        newer_than: The checkpoint that is resumed from; older ones are left alone. None: all.

    Returns:
        The new names, `incomplete-checkpoint-N`; they can be deleted.
    """
    oldest = int(newer_than.name.rpartition("-")[2]) if newer_than else -1
    moved = []
    for step, path in checkpoints(output_dir):
        if step > oldest:
            target = path.with_name(f"{INCOMPLETE_PREFIX}{path.name}")
            number = 1
            while target.exists():
                number += 1
                target = path.with_name(f"{INCOMPLETE_PREFIX}{path.name}.{number}")
            path.rename(target)
            moved.append(target)
    return moved


def _json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _has_text(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
