"""Images of published data, whose paths are often those of their authors' machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def places_by_ending(path: str, folders: tuple[Path, ...]) -> Iterator[Path]:
    """Where an image may lie: its path below each folder, then without its first names. None is outside of them."""
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", ".")]
    if ".." in parts:
        return
    if Path(path).is_absolute() and any(Path(path).is_relative_to(folder) for folder in folders):
        yield Path(path)
    for start in range(len(parts)):
        yield from (folder.joinpath(*parts[start:]) for folder in folders)
