"""The folder of one set of a store, filled part by part, so that a kill costs one part.

STORE/sets/NAME/unfinished/key.json            what the parts were made from
STORE/sets/NAME/unfinished/<file>-<row>.jsonl  parts: {"row": …} or {"dropped": …} a line; complete or absent
STORE/sets/NAME/…                              the set
STORE/sets/NAME/dropped.jsonl                  every row that is not in it, with the reason
STORE/sets/NAME/manifest.json                  written last: without it the set is unfinished
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.files import settle_disk, write_whole
from data.prepare.errors import PrepareError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SetFolder:
    """One set.

    Args:
        store: The store's folder.
        name: Of the set.

    Raises:
        PrepareError: The name is none for a folder.
    """

    def __init__(self, store: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise PrepareError(f"{name!r} is no name of a set; use letters, digits, '.', '_' and '-'")
        self.path = store / "sets" / name
        self._unfinished = self.path / "unfinished"

    def manifest(self) -> dict[str, Any] | None:
        """That of a finished set."""
        try:
            found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    @contextlib.contextmanager
    def begun(self, key: Mapping[str, Any]) -> Iterator[bool]:
        """Work on the set, alone; yields whether there is anything to do.

        Args:
            key: What the set is made from, as plain values of JSON.

        Raises:
            PrepareError: Another process works on it, or it is another set.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PrepareError(f"another process prepares {self.path}; wait for it") from error
            before = (self.manifest() or {}).get("key") or self._key()
            if before is not None and before != key:
                raise PrepareError(
                    f"{self.path} was made from other files or settings ({_difference(before, key)}); give another --name, "
                    "or delete that folder: its images stay in the store"
                )
            is_open = self.manifest() is None
            if is_open:
                self._unfinished.mkdir(exist_ok=True)
                write_whole(self._unfinished / "key.json", [json.dumps(key, ensure_ascii=False)])
            yield is_open

    def _key(self) -> Any:
        try:
            return json.loads((self._unfinished / "key.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def next_row(self, file: int) -> int:
        """The first row of a source file that no part has."""
        ends = [int(path.stem.split("-")[2]) for path in self._unfinished.glob(f"{file:05d}-*.jsonl")]
        return max(ends, default=0)

    def add(self, file: int, first: int, end: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep a part: what became of the rows `first` to `end` (not included) of a source file, their images before it.

        Raises:
            OSError: There is no room.
        """
        path = self._unfinished / f"{file:05d}-{first:09d}-{end:09d}.jsonl"
        settle_disk(self.path)
        write_whole(path, (json.dumps(line, ensure_ascii=True) + "\n" for line in lines), durable=True)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What the parts hold, in the order of the sources."""
        for path in sorted(self._unfinished.glob("*.jsonl")):
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def give_up(self) -> None:
        """Remove the parts, of which no set can be made: mended sources begin anew."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, and remove the parts.

        Raises:
            OSError: There is no room.
        """
        write_whole(self.path / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1), durable=True)
        shutil.rmtree(self._unfinished, ignore_errors=True)


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "its key is damaged"
    return ", ".join(name for name in {**before, **now} if before.get(name) != now.get(name))
