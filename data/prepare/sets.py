"""RL rows and conversations of any published form become a set of a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent.files import write_whole
from agent.image_library import ImageLibrary, open_library
from data import store_rows
from data.look.files import RowsFile, data_files
from data.look.rows import WHOLE_FILE, LookedRow, LookOptions, in_threads, rows_of
from data.prepare.errors import PrepareError
from data.prepare.manifest import SetCounts, sha256_of, versions
from data.prepare.rows import RowNames, taken
from data.prepare.set_folder import SetFolder
from reinforcement_learning.row_files import file_checksum

_PART_ROWS = 512
FILES = {"rl": "rl.parquet", "sft": "sft.json"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SetSettings:
    """How a set is made."""

    kind: Literal["rl", "sft"]
    names: RowNames
    image_roots: tuple[str, ...] = ()
    quickly: bool = False
    """Believe plain images whose end says that they are whole."""


def prepare_set(
    sources: Sequence[str], store: Path, name: str, settings: SetSettings
) -> tuple[Path, dict[str, Any], bool]:
    """Prepare a set, or go on with it, or find that it is done.

    Args:
        sources: Files, patterns or folders.
        store: The store.
        name: Of the set.
        settings: How.

    Returns:
        The set's folder, its manifest, and whether anything was done.

    Raises:
        PrepareError: There is nothing to prepare, or the folder holds another set.
        NothingToLookAt: A source leads to no file of data.
        OSError: A source cannot be read, or there is no room; what was done is kept.
    """
    files = [file for file in data_files(sources) if file.kind == settings.kind]
    if not files:
        raise PrepareError(f"{', '.join(sources)}: no file of {settings.kind} rows; is it `prepare rl` or `prepare sft`?")
    folder = SetFolder(store, name)
    if inside := next((file.path for file in files if file.path.resolve().is_relative_to(folder.path.resolve())), None):
        raise PrepareError(f"{inside} lies in the set that is to be written; give another --name, or another source")
    key = {
        "kind": settings.kind,
        "sources": {_unique(file.path, files): file_checksum(file.path) for file in files},
        "settings": {
            "names": asdict(settings.names), "quickly": settings.quickly, "image_roots": list(settings.image_roots),
        },
    }  # fmt: skip
    library = _library(store)
    with folder.begun(key) as is_open:
        if not is_open:
            return folder.path, folder.manifest() or {}, False
        notes: list[str] = []
        for number, file in enumerate(files):
            _read(folder, number, file, library, settings, notes)
        return folder.path, _write(folder, key, settings.kind, notes), True


def _library(store: Path) -> ImageLibrary:
    try:
        return open_library(store)
    except ValueError as error:
        raise PrepareError(str(error)) from error


def _unique(path: Path, files: Sequence[RowsFile]) -> str:
    """The name of a file; with its folder where another has the same."""
    return path.name if sum(file.path.name == path.name for file in files) == 1 else f"{path.parent.name}/{path.name}"


def _read(
    folder: SetFolder, number: int, file: RowsFile, library: ImageLibrary, settings: SetSettings, notes: list[str]
) -> None:
    options = LookOptions(image_roots=settings.image_roots, by_ending=True)
    first = end = folder.next_row(number)
    part: list[dict[str, Any]] = []
    take = partial(_taken, library=library, names=settings.names, file=file.path.name, quickly=settings.quickly)
    with ThreadPoolExecutor(1) as keeper:  # what waits for the disk does not stop what reads
        keeping: Future[None] | None = None
        for row, line, note in in_threads(take, rows_of(file, options, first=first)):
            if note:
                notes.append(note)
                continue
            part.append(line)
            end = row + 1
            if len(part) == _PART_ROWS:
                if keeping is not None:
                    keeping.result()
                keeping = keeper.submit(folder.add, number, first, end, part)
                part, first = [], end
        if keeping is not None:
            keeping.result()
    if part:
        folder.add(number, first, end, part)


def _taken(row: LookedRow, **how: Any) -> tuple[int, dict[str, Any], str]:
    if row.row == WHOLE_FILE:
        problem = row.problems[0]
        if problem.kind == "file cannot be read":
            raise PrepareError(str(problem))
        return row.row, {}, str(problem)
    return row.row, taken(row, **how), ""


def _write(folder: SetFolder, key: dict[str, Any], kind: str, notes: Sequence[str]) -> dict[str, Any]:
    counts = SetCounts()
    path = folder.path / FILES[kind]
    rows = _counted(folder.lines(), counts)
    if kind == "rl":
        store_rows.write_rows(path, rows, store_rows.schema())
    else:
        write_whole(path, _json_list(rows), durable=True)
    if not counts.kept:
        path.unlink()
        folder.give_up()
        first = next(iter(counts.first_dropped.values()), "the sources are empty")
        raise PrepareError(f"no row is left of {', '.join(key['sources'])}, so there is no set; {first}")
    dropped = folder.path / "dropped.jsonl"
    write_whole(dropped, (json.dumps(one["dropped"]) + "\n" for one in folder.lines() if "dropped" in one))
    manifest = {
        "format": 1,
        "key": key,
        "counts": counts.told(),
        "notes": list(notes),
        "files": {each.name: sha256_of(each) for each in (path, dropped)},
        "versions": versions(),
    }
    folder.finish(manifest)
    return manifest


def _counted(lines: Iterable[dict[str, Any]], counts: SetCounts) -> Iterator[dict[str, Any]]:
    for line in lines:
        if "dropped" in line:
            counts.add_dropped(line["dropped"])
        else:
            counts.add_row(line["row"], line["question_images"])
            yield line["row"]


def _json_list(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}\n{json.dumps(row, ensure_ascii=False)}"
    yield "\n]\n"
