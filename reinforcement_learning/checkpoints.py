"""Checkpoints on disk: one is there as a whole or not at all, and one whole one always stays.

    checkpoints/global_step_<N>/     complete: `complete.json`, written last, lists every file with its size
    checkpoints/.saving/             what is being written; left behind by a kill, and removed at the next start
    checkpoints/.removing/           what is being deleted; the same
    checkpoints/set_aside/           folders without a valid list: from other programs, or damaged; never resumed from

A save goes to `.saving`, is flushed to the disk, gets its list, and is renamed. Only then are older ones deleted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.files import settle, write_whole

MARKER = "complete.json"
METRICS = "metrics.json"
"""Of the step, as far as they were known when it was saved."""
_PREFIX = "global_step_"
_TRACKER = "latest_checkpointed_iteration.txt"


class BrokenCheckpoint(RuntimeError):
    """A save did not leave what it should have."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete one."""

    step: int
    path: Path

    @property
    def world_size(self) -> int | None:
        """Ranks that wrote it, if verl's FSDP engine did."""
        return _world_size(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of its step, as far as they were known; empty if there are none."""
        path = self.path / METRICS
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


class Checkpoints:
    """The checkpoints of a run.

    Args:
        directory: Shared by all nodes of the run.
        keep: So many newest complete ones stay; None or 0 keeps all.
        wait_s: For files of other nodes, which a network file system may show late.
    """

    def __init__(self, directory: Path, keep: int | None = None, *, wait_s: float = 60.0) -> None:
        self._directory = directory
        self._keep = keep or 0
        self._wait_s = wait_s

    @property
    def saving(self) -> Path:
        """The folder in which verl makes its `global_step_<N>`."""
        return self._directory / ".saving"

    def complete(self) -> list[Checkpoint]:
        """Complete ones by step. Nothing but their own lists is trusted, verl's tracker file least of all."""
        found = [Checkpoint(step, path) for step, path in self._folders() if _is_complete(path)]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def newest(self) -> Checkpoint | None:
        """The one to resume from."""
        found = self.complete()
        return found[-1] if found else None

    def begin(self) -> None:
        """An empty folder for a save; older ones that a kill has kept from going go now, so that there is room for it."""
        self._remove_older()
        shutil.rmtree(self.saving, ignore_errors=True)
        self.saving.mkdir(parents=True)

    def finish(self, step: int, metrics: Mapping[str, float]) -> Path:
        """What was written to `saving` becomes a checkpoint, then older ones go.

        Raises:
            BrokenCheckpoint: Files of some ranks are not there.
        """
        source, target = self.saving / f"{_PREFIX}{step}", self._directory / f"{_PREFIX}{step}"
        _check_ranks(source, self._wait_s)
        (source / METRICS).write_text(json.dumps(dict(metrics)), encoding="utf-8")
        for path in source.rglob("*"):
            settle(path)
        files = {str(path.relative_to(source)): path.stat().st_size for path in sorted(source.rglob("*")) if path.is_file()}
        write_whole(source / MARKER, json.dumps({"step": step, "files": files}, indent=1), durable=True)
        if target.exists():
            self._remove(target)
        source.rename(target)
        settle(self._directory)
        # Not read by us; other programs look for it.
        write_whole(self._directory / _TRACKER, str(step), durable=True)
        shutil.rmtree(self.saving, ignore_errors=True)
        self._remove_older()
        return target

    def tidy(self, last_step: int | None) -> list[str]:
        """Clear away what kills have left and what a run that goes on from `last_step` does not build on.

        Args:
            last_step: The step to resume from; None for a run from the start.

        Returns:
            What was done, for the person who starts the run.
        """
        for path in (self.saving, self._directory / ".removing"):
            shutil.rmtree(path, ignore_errors=True)
        done = []
        for step, path in self._folders():
            if not _is_complete(path):
                why = f"has no valid {MARKER}: another program wrote it, or it is damaged"
            elif last_step is None or step > last_step:
                why = f"is later than the step that this run goes on from ({last_step or 0})"
            else:
                continue
            aside = self._directory / "set_aside"
            aside.mkdir(exist_ok=True)
            target = aside / path.name
            number = 1
            while target.exists():
                number += 1
                target = aside / f"{path.name}_{number}"
            path.rename(target)
            done.append(f"{path.name} {why}; it was moved to {target} and may be deleted")
        return done

    def _folders(self) -> list[tuple[int, Path]]:
        return [
            (int(path.name.removeprefix(_PREFIX)), path)
            for path in self._directory.glob(f"{_PREFIX}*")
            if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()
        ]

    def _remove_older(self) -> None:
        if self._keep > 0:
            for checkpoint in self.complete()[: -self._keep]:
                self._remove(checkpoint.path)

    def _remove(self, path: Path) -> None:
        # Renamed first: a kill in the middle of deleting must not leave half a checkpoint under a good name.
        bin_ = self._directory / ".removing"
        bin_.mkdir(exist_ok=True)
        shutil.rmtree(bin_ / path.name, ignore_errors=True)
        path.rename(bin_ / path.name)
        shutil.rmtree(bin_, ignore_errors=True)


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads((path / MARKER).read_text(encoding="utf-8"))["files"]
        return bool(files) and all((path / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _world_size(path: Path) -> int | None:
    try:
        return int(json.loads((path / "actor/fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_ranks(path: Path, wait_s: float) -> None:
    ranks = _world_size(path)
    if ranks is None:
        return
    until = time.monotonic() + wait_s
    while missing := _missing_files(path / "actor", ranks):
        if time.monotonic() >= until:
            raise BrokenCheckpoint(f"{missing}. run.directory must be on a file system that all nodes see at the same path")
        time.sleep(min(1.0, wait_s))


def _missing_files(actor: Path, ranks: int) -> str:
    for kind in ("model", "optim", "extra_state"):
        there = len(list(actor.glob(f"{kind}_world_size_{ranks}_rank_*.pt")))
        # A kind that the recipe does not save is nowhere.
        if there not in (0, ranks):
            return f"{there} of {ranks} files {kind}_world_size_{ranks}_rank_*.pt are in {actor}"
    return ""
