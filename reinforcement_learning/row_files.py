"""Parquet files of rows: streamed once, and kept where any row is a seek away.

Files are read a few rows at a time, so that a row group of more than 2 GiB of images, which Arrow refuses to read whole,
is read like any other. Each row keeps the types it has in its own file: files of different schemas need no common one.
Rows that are drawn at random are served from a copy of the file made for that purpose (`RowStore`), in the cache of the
user: parquet itself can only be read a row group at a time. Images that stand in the rows become files of a store there, by
sha256, each once; a set that `deepeyes data prepare` made has its images by name already.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from agent.files import whole_file, write_whole
from agent.image_library import ImageLibrary, open_library, store_of
from agent.recipes import RecipeError
from reinforcement_learning.row_images import is_list
from reinforcement_learning.rows import RowContent, RowOptions, read_row

_log = logging.getLogger(__name__)
_BATCH_BYTES = 16 << 20
_MAX_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20
_FORMAT = "2"


def find_files(patterns: Iterable[str]) -> list[str]:
    """Expand patterns into absolute paths.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern))  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise RecipeError(f"no data file matches {pattern!r}; see data/README.md for where to get them")
        found += [str(Path(match).resolve()) for match in matches]
    return found


def cache_directory() -> Path:
    """Where copies and verdicts are kept between runs: DEEPEYES_CACHE, or `deepeyes` in the cache of the user."""
    own = os.environ.get("DEEPEYES_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepeyes"


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a file; remembered as long as its size and time of change stay the same."""
    path = Path(path)
    facts = path.stat()
    name = hashlib.sha256(f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}".encode()).hexdigest()
    note = cache_directory() / "checksums" / name
    try:
        return note.read_text(encoding="ascii")
    except OSError:
        pass
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        write_whole(note, checksum)
    return checksum


def read_groups(
    path: str | Path, groups: Sequence[int] | None, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of some row groups, or of all, with their numbers in the file.

    Args:
        path: A parquet file.
        groups: Numbers of row groups; None is all of them.
        columns: To read; those that the file does not have are left out.

    Raises:
        RecipeError: The file is no readable parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        # A whole row group is read ahead otherwise, and of 2 GiB of images nothing else has room.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES) as file:
            wanted = [name for name in columns if name in file.schema_arrow.names]
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            for group in range(len(sizes)) if groups is None else groups:
                first = sum(sizes[:group])
                for number, row in enumerate(_group_rows(file, group, wanted)):
                    yield first + number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise RecipeError(f"{path} is no readable parquet file ({error}); was its download cut off?") from error


def _group_rows(file: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow

    facts = file.metadata.row_group(group)
    row_bytes = max(1, facts.total_byte_size // max(1, facts.num_rows))
    batch_rows = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    done = 0
    while True:
        skipped = 0
        try:
            for batch in file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=columns):
                for row in batch.to_pylist():
                    if skipped < done:
                        skipped += 1
                        continue
                    done += 1
                    skipped += 1
                    yield row
            return
        except pyarrow.ArrowNotImplementedError:
            # Equal images are stored once and count once in the size of the group: fewer rows at a time may fit.
            if batch_rows == 1:
                raise
            batch_rows = max(1, batch_rows // 16)


class RowStore:
    """The rows of one parquet file by number. Made at the first use, shared by all processes of the user.

    Args:
        path: A parquet file.
        options: Names of columns and folders of images.

    Raises:
        RecipeError: The file is no readable parquet file, or the cache has no room.
    """

    def __init__(self, path: str | Path, options: RowOptions) -> None:
        self._path = str(path)
        name = hashlib.sha256("\0".join((_FORMAT, file_checksum(path), *options.columns)).encode()).hexdigest()
        store = cache_directory() / "store"
        # It lies in the store, so that who deletes the images deletes what names them.
        self._data_path = store / "rows" / f"{name}.rows"
        own = store_of(Path(path).resolve().parent)
        self.library = ImageLibrary(own or store)
        """Has the images that the rows name."""
        self._options = options if own else replace(options, image_roots=(*options.image_roots, str(store)))
        if not self._data_path.is_file():
            self._make()
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_path", "_options", "_data_path", "library")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, row: int) -> dict[str, Any]:
        """The values of a row by column."""
        start = self._ends[row - 1] if row else 0
        values: dict[str, Any] = msgpack.unpackb(self._data[start : self._ends[row]], strict_map_key=False)
        return values

    def __getitem__(self, row: int) -> RowContent:
        """Raises:
        RowError: The row cannot be trained on.
        """
        return read_row(self.raw(row), file=self._path, row=row, options=self._options)

    def _make(self) -> None:
        folder = self._data_path.parent.parent
        started, key = time.monotonic(), self._options.image_key
        ends: list[int] = []
        try:
            library = open_library(folder)
            with whole_file(self._data_path) as file:
                for _, values in read_groups(self._path, None, self._options.columns):
                    if key in values:
                        values[key] = _by_name(values[key], library)
                    file.write(msgpack.packb(values, default=_plain))
                    ends.append(file.tell())
                # The places of the rows stand behind them, so that the file is complete or absent.
                index = json.dumps(ends).encode("ascii")
                file.write(index + len(index).to_bytes(8, "little"))
        except OSError as error:
            raise RecipeError(
                f"the rows of {self._path} cannot be kept in {folder} ({error}); set DEEPEYES_CACHE to a folder with room "
                "for the uncompressed data"
            ) from error
        if self.library.root == library.root:
            _log.warning(
                "%s was not prepared, and is now, in %.0f s: %s rows, and their images by name in %s; `deepeyes data "
                "prepare rl` does that once for all users", self._path, time.monotonic() - started, f"{len(ends):,}", folder,
            )  # fmt: skip

    def _open(self) -> None:
        with self._data_path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._data[-8:], "little")
        self._ends: list[int] = json.loads(self._data[-8 - length : -8])


def _plain(value: Any) -> Any:
    """Dates and decimals, which only occur in `extra_info`, as texts."""
    return list(value) if isinstance(value, tuple | set) else str(value)


def _by_name(value: Any, library: ImageLibrary) -> Any:
    """Images of a row with their bytes as names of files in a store; what is anything else as it is."""
    if is_list(value):
        return [_by_name(one, library) for one in value]
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return library.put(data, durable=False) if isinstance(data, bytes) and data else value
