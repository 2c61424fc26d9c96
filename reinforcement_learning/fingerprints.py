"""What a run was started with, known by content: its data and its model. They may be moved, but not changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA_FILE = "data.json"
_MODEL_FILE = "model.json"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that is trained on, known by its content."""

    name: str
    path: str
    size_bytes: int
    modified_ns: int
    sha256: str


def fingerprints(directory: Path, data_files: Sequence[str], model: str) -> dict[str, str]:
    """Files for the run's folder: name -> text."""
    data = [_as_row(file) for file in _data(directory, data_files)]
    return {_DATA_FILE: json.dumps(data, indent=1), _MODEL_FILE: json.dumps(_model(model), indent=1)}


def _data(directory: Path, paths: Sequence[str]) -> tuple[DataFile, ...]:
    """Checksums, made once for each state of a file."""
    known = {(file.path, file.size_bytes, file.modified_ns): file.sha256 for file in _stored_data(directory) or ()}
    found = []
    for path in map(Path, paths):
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        found.append(DataFile(path.name, *key, known.get(key) or _sha256(path)))
    return tuple(found)


def _stored_data(directory: Path) -> tuple[DataFile, ...] | None:
    try:
        rows = json.loads((directory / _DATA_FILE).read_text(encoding="utf-8"))
        return tuple(DataFile(**row) for row in rows)
    except (OSError, ValueError, TypeError):
        return None


def data_changes_since(directory: Path, paths: Sequence[str]) -> list[str]:
    """How today's files differ, by content and order, from those that the run was started with; a line each."""
    stored = _stored_data(directory)
    if stored is None:
        return []
    data = _data(directory, paths)
    if [file.sha256 for file in stored] == [file.sha256 for file in data]:
        return []
    before, now = {file.sha256: file for file in stored}, {file.sha256: file for file in data}
    gone = [file for file in stored if file.sha256 not in now]
    come = [file for file in data if file.sha256 not in before]
    lines = []
    for old in list(gone):
        new = next((file for file in come if file.name == old.name), None)
        if new is not None:
            gone.remove(old)
            come.remove(new)
            lines.append(f"data file {old.name}: other content ({old.size_bytes:,} -> {new.size_bytes:,} bytes)")
    lines += [f"data file {file.name}: no longer there" for file in gone]
    lines += [f"data file {file.name}: new" for file in come]
    order = f"data files: another order ({', '.join(file.name for file in stored)} -> {', '.join(f.name for f in data)})"
    return lines or [order]


def _model(name: str) -> dict[str, Any]:
    """A model by its settings and the sizes of its files; by its name alone if it is not on this machine."""
    folder = Path(name)
    if not folder.is_dir():
        return {"name": name, "sizes_bytes": {}}
    parts = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin")]
    settings = [path for name in ("config.json", "tokenizer.json") if (path := folder / name).is_file()]
    sizes = {path.name: path.stat().st_size for path in parts}
    return {"name": name, "sizes_bytes": sizes, "sha256": {path.name: _sha256(path) for path in settings}}


def model_changes_since(directory: Path, name: str) -> list[str]:
    """The same for the model to start from."""
    try:
        stored = json.loads((directory / _MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    today = _model(name)
    if today["sizes_bytes"] and stored.get("sizes_bytes"):
        same = all(today[key] == stored.get(key) for key in ("sizes_bytes", "sha256"))
    else:
        same = today["name"] == stored.get("name")
    return [] if same else [f"run.model: another model ({stored.get('name')} -> {name})"]


def _as_row(file: DataFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in DataFile.__slots__}


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
