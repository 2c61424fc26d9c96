"""Where data files lie: in `datasets/`, or in the folder that DEEPEYES_DATA names; data/README.md says what is in it."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)
FOLDERS: dict[str, str | None] = {
    "sft": "DEEPEYES_SFT_DATA",
    "rl": "DEEPEYES_RL_DATA",
    "search": None,
    "search_cache": "DEEPEYES_SEARCH_CACHE",
    "eval": None,
}
"""Folders of data, and the environment variable that puts one of them somewhere else than the others."""
_DEFAULT, _OLD = Path("datasets"), Path("data")


def data_folder(name: str) -> Path:
    """The folder of one kind of data, whether or not it is there; recipes write it `${data.NAME}`.

    Where neither its own variable nor DEEPEYES_DATA is set and `datasets/NAME` is not there, files that still lie in the old
    place `data/NAME` are found there, and a warning says how to move them.

    Raises:
        LookupError: There is no such folder; the message lists those there are.
    """
    if name not in FOLDERS:
        raise LookupError(f"there is no folder of data {name!r}; there are {', '.join(FOLDERS)}")
    variable = FOLDERS[name]
    if variable and (own := os.environ.get(variable)):
        return Path(own)
    if base := os.environ.get("DEEPEYES_DATA"):
        return Path(base) / name
    folder, old = _DEFAULT / name, _OLD / name
    if old.is_dir() and not folder.exists():
        _say_how_to_move(old.absolute())
        return old
    return folder


@functools.cache
def _say_how_to_move(old: Path) -> None:
    """Say it once for each folder, however often it is asked for."""
    new = old.parent.parent / _DEFAULT
    _log.warning(
        "%s is the old place of these files and is used because %s is not there; move them: mkdir -p %s && mv %s %s/",
        old, new / old.name, new, old, new,
    )  # fmt: skip
