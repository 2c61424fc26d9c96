"""What lay in a GPU's memory when it was fullest, by the code that asked for it: from the history of torch's allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_TELLING = (
    "/transformers/",
    "/verl/",
    "/fsdp/",
    "/optim/",
    "/peft/",
    "/flash_attn/",
    "/torch/utils/checkpoint",
    "/benchmarks/",
)
"""Parts of the paths of files whose functions say what memory is for."""
_BACKWARD = "backward, without Python"
_ENTRIES = 1_000_000


def record(work: Callable[[], object]) -> dict[str, int]:
    """Do something and say what the largest memory during it was made of.

    Returns:
        Bytes by place, the largest first; what was there before is "earlier".
    """
    import torch

    earlier = torch.cuda.memory_allocated()
    torch.cuda.memory._record_memory_history(context="alloc", stacks="python", max_entries=_ENTRIES)
    try:
        work()
        torch.cuda.synchronize()
        events = torch.cuda.memory._snapshot()["device_traces"][0]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    return {"earlier": earlier} | at_peak(events)


def at_peak(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Sum what is allocated at the fullest moment.

    Args:
        events: In their order, as torch's snapshot has them: `action`, `addr`, `size` and `frames`. What is freed without
            having been allocated was there before.

    Returns:
        Bytes by place, the largest first; what was there before and is gone by then is a negative number.
    """
    events = list(events)
    allocated: dict[int, int] = {}
    now = most = fullest = 0
    for index, event in enumerate(events):
        if event["action"] == "alloc":
            allocated[event["addr"]] = event["size"]
            now += event["size"]
        elif event["action"] == "free_requested":
            now -= allocated.pop(event["addr"], event["size"])
        if now > most:
            most, fullest = now, index
    live: dict[int, Mapping[str, Any]] = {}
    gone = 0
    for event in events[: fullest + 1] if most else ():
        if event["action"] == "alloc":
            live[event["addr"]] = event
        elif event["action"] == "free_requested" and live.pop(event["addr"], None) is None:
            gone += event["size"]
    found: dict[str, int] = {"earlier, freed by then": -gone} if gone else {}
    for event in live.values():
        place = _place(event["frames"])
        found[place] = found.get(place, 0) + event["size"]
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _place(frames: Iterable[Mapping[str, Any]]) -> str:
    """The three innermost functions that say something, the innermost first."""
    named = [frame for frame in frames if any(part in frame["filename"] for part in _TELLING)]
    if not named:
        return _BACKWARD
    return " < ".join(f"{frame['filename'].rpartition('/')[2]}:{frame['line']} {frame['name']}" for frame in named[:3])
