"""What the machine must have: disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.recipes import RecipeError

_MIN_FREE_BYTES = 1 << 30


def check_disk(directory: Path) -> str:
    existing = next(path for path in (directory, *directory.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < _MIN_FREE_BYTES:
        raise RecipeError(f"{existing} has {free >> 20:,} MiB free; a run needs at least 1 GiB there. Set run.directory=…")
    return f"{free >> 30:,} GiB free in {existing}"
