"""Files of a run's folder: replaced as a whole, and read with what to do about it when they cannot be."""

from __future__ import annotations

import json
from pathlib import Path


class RunMismatch(ValueError):
    """The folder holds another run, no run, or one that cannot be read."""


def read_text(path: Path) -> str:
    """A file of a run.

    Raises:
        RunMismatch: It is missing.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunMismatch(
            f"{path} is missing; a run has run.json, and a scored one summary.json: "
            f"`deepeyes eval --out {path.parent} --stage score`"
        ) from error


def version_of(path: Path, text: str, newest: int) -> int:
    """The version of a JSON object; one that says none is of version 1.

    Raises:
        RunMismatch: It is none, or a newer version wrote it.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunMismatch(f"{path} is no JSON ({error}); was it edited?") from error
    if not isinstance(value, dict):
        raise RunMismatch(f"{path} is no JSON object; was it edited?")
    version = value.get("version", 1)
    if not isinstance(version, int) or not 1 <= version <= newest:
        raise RunMismatch(f"{path} has version {version!r}, this code reads 1 to {newest}; update it")
    return version


def read_lines(path: Path) -> list[str]:
    """Lines of a file of JSON lines. `splitlines` would also end a line at U+2028, which JSON leaves in its texts."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
