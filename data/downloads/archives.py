"""Archives of images unpacked: every name is looked at before a byte is written, and a second time nothing is written."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from agent.files import whole_file
from data.downloads.errors import FetchFailed
from data.downloads.paths import inside

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_SPARE_BYTES = 64 << 20
_SYMLINK = 0o120000
_APPLES = "__MACOSX/"
"""What the archiver of macOS adds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """A file of an archive."""

    name: str
    size: int
    is_link: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Whether a file has the name of an archive that can be unpacked here."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path) -> tuple[Path, int]:
    """Unpack an archive beside itself.

    A folder of the archive's name is made, unless all that it holds lies in such a folder already.

    Args:
        archive: A zip or tar file; it stays.

    Returns:
        The folder, and how many files were written; those that are there at their size are not written again.

    Raises:
        FetchFailed: A name leads out of the folder, a member is a link or broken, or there is no room.
    """
    stem = archive.name[: -len(next(one for one in reversed(ENDINGS) if archive.name.lower().endswith(one)))]
    folder = archive.parent / stem
    try:
        with _members(archive) as members:
            files = list(members)
            own = all(PurePosixPath(one.name).parts[:1] == (stem,) for one in files)
            base = archive.parent if own else folder
            targets = [_target(archive, base, one) for one in files]
            missing = [
                (one, target)
                for one, target in zip(files, targets, strict=True)
                if not target.is_file() or target.stat().st_size != one.size
            ]
            _check_room(archive, folder, sum(one.size for one, _ in missing))
            for one, target in missing:
                _write(archive, one, target)
    except FetchFailed:
        raise
    except _BROKEN as error:
        raise FetchFailed(f"{archive} cannot be unpacked ({error}); delete it, and fetch it again") from error
    except OSError as error:
        raise FetchFailed(f"{archive} cannot be unpacked ({error}); run it again, and what is there stays") from error
    return folder, len(missing)


@contextmanager
def _members(archive: Path) -> Iterator[Iterable[_Member]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            listed = (one for one in zipped.infolist() if not one.is_dir() and not one.filename.startswith(_APPLES))
            yield (_of_zip(zipped, one) for one in listed)
    else:
        with tarfile.open(archive) as tarred:
            yield (_of_tar(tarred, one) for one in tarred.getmembers() if not one.isdir())


def _of_zip(zipped: zipfile.ZipFile, one: zipfile.ZipInfo) -> _Member:
    is_link = (one.external_attr >> 16) & 0o170000 == _SYMLINK
    return _Member(name=one.filename, size=one.file_size, is_link=is_link, open=lambda: zipped.open(one))


def _of_tar(tarred: tarfile.TarFile, one: tarfile.TarInfo) -> _Member:
    return _Member(name=one.name, size=one.size, is_link=not one.isfile(), open=lambda: tarred.extractfile(one))


def _target(archive: Path, base: Path, one: _Member) -> Path:
    target = inside(base, one.name, str(archive))
    if one.is_link:
        raise FetchFailed(f"{archive} holds {one.name!r}, which is a link or a device; nothing of it was written")
    if not target.resolve().is_relative_to(base.resolve()):  # by a link that lies in the folder already
        raise FetchFailed(f"{archive} holds {one.name!r}, which leads out of {base} by a link; nothing of it was written")
    return target


def _check_room(archive: Path, folder: Path, needed: int) -> None:
    place = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(place).free
    if needed and needed + _SPARE_BYTES > free:
        raise FetchFailed(f"{archive} unpacks to {needed:,} more bytes, {place} has room for {free:,}; make room")


def _write(archive: Path, one: _Member, target: Path) -> None:
    try:
        source = one.open()
        if source is None:
            raise FetchFailed(f"{archive} holds {one.name!r}, which is no file")
        with source, whole_file(target) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except _BROKEN as error:
        raise FetchFailed(f"{archive}: {one.name!r} is broken ({error}); delete the archive, and fetch it again") from error
