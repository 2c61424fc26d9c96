"""The published cache of image searches becomes a set whose images lie in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.files import settle_disk, write_whole
from agent.image_library import ImageLibrary, open_library
from agent.image_paths import places_by_ending
from agent.images import ImageFile, UnreadableImage
from data.look.rows import in_threads
from data.prepare.errors import PrepareError
from data.prepare.manifest import sha256_of, versions
from data.prepare.set_folder import SetFolder
from reinforcement_learning.row_files import file_checksum

_Problems = list[tuple[str, str]]


def prepare_search_cache(
    sources: Sequence[str], store: Path, name: str, image_roots: Sequence[str]
) -> tuple[Path, dict[str, Any], bool]:
    """Prepare one cache file (its form: agent/search/providers/mmsearch_r1.py), or find that it is done.

    Args:
        sources: The file, alone.
        store: The store.
        name: Of the set.
        image_roots: Where its images lie, after the file's own folder.

    Returns:
        The set's folder, its manifest, and whether anything was done.

    Raises:
        PrepareError: It is no such file, or no entry of it can be used.
        OSError: It cannot be read, or there is no room.
    """
    if len(sources) != 1 or not Path(sources[0]).is_file():
        raise PrepareError(f"{', '.join(sources)}: expected the JSON file of the cache; data/README.md says where to get it")
    path = Path(sources[0])
    folder = SetFolder(store, name)
    settings = {"image_roots": list(image_roots)}
    key = {"kind": "search-cache", "sources": {path.name: file_checksum(path)}, "settings": settings}
    try:
        cache = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise PrepareError(f"{path} cannot be read as JSON in UTF-8 ({error}); was its download cut off?") from error
    try:
        library = open_library(store)
    except ValueError as error:
        raise PrepareError(str(error)) from error
    if not isinstance(cache, dict):
        raise PrepareError(f"{path} holds a {type(cache).__name__}; expected an object keyed by question id")
    with folder.begun(key) as is_open:
        if not is_open:
            return folder.path, folder.manifest() or {}, False
        folders = (path.resolve().parent, *(Path(root).resolve() for root in image_roots))
        return folder.path, _written(folder, key, cache, library, folders), True


def _written(
    folder: SetFolder, key: dict[str, Any], cache: dict[str, Any], library: ImageLibrary, folders: tuple[Path, ...]
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    dropped: list[dict[str, Any]] = []
    names: set[str] = set()
    file = next(iter(key["sources"]))
    for item, entry, problems in in_threads(partial(_entry, library=library, folders=folders), cache.items()):
        dropped += [{"file": file, "row": item, "kind": kind, "detail": detail} for kind, detail in problems]
        if entry is not None:
            entries[item] = entry
            names |= {one for one in entry["cached_images_path"] if one}
    if not entries:
        first = dropped[0]["detail"] if dropped else "it is empty"
        raise PrepareError(f"no entry of {file} can be used; the first: {first}")
    settle_disk(folder.path)  # nothing names an image that a loss of power could take
    path, lost = folder.path / "search_cache.json", folder.path / "dropped.jsonl"
    write_whole(path, json.dumps(entries, ensure_ascii=False, indent=0), durable=True)
    write_whole(lost, (json.dumps(one) + "\n" for one in dropped))
    kinds = dict.fromkeys(one["kind"] for one in dropped)
    told = {
        kind: {
            "number": sum(one["kind"] == kind for one in dropped),
            "first": next(f"{one['row']}: {one['detail']}" for one in dropped if one["kind"] == kind),
        }
        for kind in kinds
    }
    manifest = {
        "format": 1,
        "key": key,
        "counts": {"rows": len(entries), "different_images": len(names), "dropped": told},
        "notes": [],
        "files": {each.name: sha256_of(each) for each in (path, lost)},
        "versions": versions(),
    }
    folder.finish(manifest)
    return manifest


def _entry(
    item: tuple[str, Any], *, library: ImageLibrary, folders: tuple[Path, ...]
) -> tuple[str, dict[str, Any] | None, _Problems]:
    """An entry with its images by name; one that is lost is null, as in the published file, so that titles stay aligned."""
    name, entry = item
    titles = entry.get("tool_returned_web_title") if isinstance(entry, dict) else None
    paths = entry.get("cached_images_path") if isinstance(entry, dict) else None
    if not isinstance(titles, list) or not isinstance(paths, list):
        return name, None, [("entry is damaged", "expected lists `tool_returned_web_title` and `cached_images_path`")]
    problems: _Problems = []
    kept: list[str | None] = []
    for path in paths:
        kept.append(None)
        if path is None:
            continue
        found = next((one for one in places_by_ending(str(path), folders) if one.is_file()), None)
        if found is None:
            problems.append(("image is missing", f"{path!r} is not there; looked in {', '.join(map(str, folders))}"))
            continue
        try:
            data = found.read_bytes()
            ImageFile(data).check()
        except (OSError, UnreadableImage) as error:
            problems.append(("image is broken", f"{found}: {error}"))
            continue
        stored = library.put(data, durable=False)
        kept[-1] = f"../../images/{stored[:2]}/{stored}"
    return name, entry | {"cached_images_path": kept}, problems
