"""Files that can be looked at, RL rows (parquet) and conversations (JSON, JSON lines), by name, pattern, folder or set."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RL_NAMES = (".parquet",)
CONVERSATION_NAMES = (".json", ".jsonl", ".ndjson")
_OTHERS = ("manifest.json", "search_cache.json", "dataset_info.json", "store.json", "dropped.parquet", "dropped.jsonl")
"""Of a prepared set, which are no rows to train on."""


class NothingToLookAt(ValueError):
    """A path leads to no data; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class RowsFile:
    """A file of rows."""

    path: Path
    kind: Literal["rl", "sft"]


def data_files(paths: Sequence[str]) -> list[RowsFile]:
    """The files that paths lead to, each once, in order.

    Args:
        paths: Files, patterns, folders (searched to the bottom), or a store's sets.

    Raises:
        NothingToLookAt: A path leads to none.
    """
    found: dict[Path, RowsFile] = {}
    for path in paths:
        files = list(_files_of(path))
        if not files:
            kinds = ", ".join((*RL_NAMES, *CONVERSATION_NAMES))
            raise NothingToLookAt(f"{path} leads to no file of data ({kinds}); data/README.md says where to get them")
        found |= {file.path.resolve(): file for file in files if file.path.resolve() not in found}
    return list(found.values())


def _files_of(path: str) -> Iterable[RowsFile]:
    if Path(path).is_dir():
        inside = sorted(one for one in Path(path).rglob("*") if not _is_hidden(one.relative_to(path)))
        matches = [one for one in inside if one.name not in _OTHERS]
    elif Path(path).is_file():
        matches = [Path(path)]
    else:
        matches = [Path(one) for one in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207 - may be absolute
    for one in matches:
        kind = _kind(one)
        if kind is not None and one.is_file():
            yield RowsFile(one, kind)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind(path: Path) -> Literal["rl", "sft"] | None:
    ending = path.suffix.lower()
    return "rl" if ending in RL_NAMES else "sft" if ending in CONVERSATION_NAMES else None
