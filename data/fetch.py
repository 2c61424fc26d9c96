"""Download published training sets and evaluation files, on request alone.

    deepeyes data fetch deepeyesv2_rl deepeyesv2_sft --unpack       training sets, into datasets/rl and datasets/sft
    deepeyes data fetch vstar hrbench4k                             benchmarks, into datasets/eval; or `all` of them
    deepeyes data fetch OWNER/NAME --include '*.parquet'            any other data set of the hub, into datasets/NAME

A download that broke off goes on where it stopped; a file is put in place when it is whole and has the published checksum,
or, where none is published, is what its name says. HF_ENDPOINT names a mirror of the hub, HF_TOKEN a token for sets that
want one, HF_HUB_OFFLINE=1 asks nobody and says what is missing. `python -m data.fetch` is the same command.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from pydantic import BaseModel, ConfigDict

from agent.data_folders import data_folder
from code_sandbox.command_line import CommandParser, program
from code_sandbox.redaction import redacted
from data.downloads.archives import is_archive, unpack
from data.downloads.errors import FetchFailed
from data.downloads.hub import HUB, endpoint, hub_headers, if_missing, if_refused, is_offline, list_files
from data.downloads.transfer import RemoteFile, download, new_client

_FOLDER = Path(__file__).parent
_AT_ONCE = 8
_SAID_EVERY_S = 10.0
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class FetchedFile(BaseModel):
    """One evaluation file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    url: str
    md5: str = ""
    """Empty where none is published."""

    def remote(self) -> RemoteFile:
        """Where it is to be had, with the mirror and the token of the environment where the hub has it.

        Raises:
            FetchFailed: The token is none.
        """
        checksum = f"md5:{self.md5}" if self.md5 else ""
        on_hub = re.match(rf"{HUB}/datasets/([^/]+/[^/]+)/", self.url)
        if on_hub is None:
            return RemoteFile(name=self.file, url=self.url, checksum=checksum)
        return RemoteFile(
            name=self.file,
            url=endpoint() + self.url.removeprefix(HUB),
            checksum=checksum,
            headers=hub_headers(),
            if_refused=if_refused(on_hub[1]),
            if_missing=if_missing(on_hub[1]),
        )


class TrainingSet(BaseModel):
    """One data set of the hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    """`owner/name`."""
    folder: str
    """The kind of data that it is put with."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchOptions:
    """What the command line says beside the names."""

    out: Path | None = None
    include: tuple[str, ...] = ()
    revision: str = "main"
    unpack: bool = False
    pause_s: float = 1.0
    """Before a second attempt; doubled for each further one."""


def sources() -> dict[str, FetchedFile]:
    """All evaluation files that are known, by name."""
    content = yaml.safe_load((_FOLDER / "sources.yaml").read_text(encoding="utf-8"))
    return {name: FetchedFile.model_validate(entry) for name, entry in content.items()}


def training_sets() -> dict[str, TrainingSet]:
    """All training sets that are known, by name."""
    content = yaml.safe_load((_FOLDER / "training_sets.yaml").read_text(encoding="utf-8"))
    return {name: TrainingSet.model_validate(entry) for name, entry in content.items()}


def fetch(source: FetchedFile, folder: Path, *, pause_s: float = 1.0, transport: httpx.BaseTransport | None = None) -> Path:
    """Download one evaluation file, or do nothing if it is there.

    Args:
        source: What.
        folder: Where; made if it is not there.
        pause_s: Before the second attempt; doubled for each further one.
        transport: For tests.

    Raises:
        FetchFailed: It cannot be had, or is another one; what has arrived is kept.
    """
    if is_offline() and not (folder / source.file).exists():
        raise FetchFailed(f"HF_HUB_OFFLINE is set, and {folder / source.file} is not there; unset it, or copy the file")
    with new_client(transport) as client:
        return download(source.remote(), folder, client=client, pause_s=pause_s)


def fetch_set(repo: str, folder: Path, options: FetchOptions) -> list[Path]:
    """Download a data set of the hub, or what is missing of it.

    Args:
        repo: `owner/name`.
        folder: Where; made if it is not there.
        options: Which of its files, and of which version.

    Returns:
        Its files.

    Raises:
        FetchFailed: Some of it cannot be had; the rest is there, and the message names what is not.
    """
    listing = list_files(repo, folder, revision=options.revision, include=options.include, pause_s=options.pause_s)
    told = f"{len(listing.files)} files, {_gib(sum(one.size or 0 for one in listing.files))}"
    offline = ", as listed the last time (HF_HUB_OFFLINE)" if listing.is_offline else ""
    sys.stderr.write(f"{repo} at {listing.commit[:12]}: {told}{offline}\n")
    if listing.is_offline:
        missing = [one.name for one in listing.files if not (folder / one.name).is_file()]
        if missing:
            raise FetchFailed(f"HF_HUB_OFFLINE is set, and {folder} lacks {_some(missing)}; unset it to fetch them")
    tally = _Tally(sum(one.size or 0 for one in listing.files if not (folder / one.name).exists()))
    failures: list[str] = []

    def one_file(client: httpx.Client, file: RemoteFile) -> Path | None:
        try:
            return download(file, folder, client=client, pause_s=options.pause_s, arrived=tally.add)
        except FetchFailed as error:
            failures.append(str(error))
            return None

    with new_client() as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda file: one_file(client, file), listing.files))
    if failures:
        more = f"; {len(failures) - 1} more files failed" if len(failures) > 1 else ""
        raise FetchFailed(f"{failures[0]}{more}; {len(found) - len(failures)} of {len(found)} files are in {folder}")
    return [path for path in found if path is not None]


class _Tally:
    """Says now and then how much has come."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._arrived = 0
        self._said = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._arrived += size
            if time.monotonic() - self._said < _SAID_EVERY_S:
                return
            self._said = time.monotonic()
            sys.stderr.write(f"{_gib(self._arrived)} of {_gib(self._expected)}\n")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 28 else f"{size / (1 << 20):.2f} MiB"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _fetch_named(name: str, options: FetchOptions) -> list[Path]:
    files, sets = sources(), training_sets()
    if name in files:
        return [fetch(files[name], options.out or data_folder("eval"), pause_s=options.pause_s)]
    known = {one.repo.lower(): one for one in sets.values()} | sets
    found = known.get(name.lower())
    repo = found.repo if found else name
    folder = options.out or (data_folder(found.folder) if found else data_folder("eval").parent / name.partition("/")[2])
    return fetch_set(repo, folder, options)


def _unknown(names: Sequence[str]) -> list[str]:
    sets = training_sets()
    return [name for name in names if name not in sources() and name.lower() not in sets and not _REPO.fullmatch(name)]


def _list() -> None:
    sys.stdout.writelines(
        f"{name:24} {one.repo:40} into {data_folder(one.folder)}: {one.note}\n" for name, one in training_sets().items()
    )
    sys.stdout.writelines(f"{name:24} {source.file:30} {source.url}\n" for name, source in sources().items())


def main(arguments: list[str] | None = None, prog: str = "data.fetch") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("name", nargs="*", help="of --list, `all` evaluation files, or OWNER/NAME of the hub")
    parser.add_argument("--out", type=Path, help="folder for the files; by default by kind in datasets, or in DEEPEYES_DATA")
    parser.add_argument("--list", action="store_true", help="names and addresses")
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="only such files of a hub's set")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a hub's set")
    parser.add_argument("--unpack", action="store_true", help="unpack archives (zip, tar) of a hub's set beside themselves")
    given = parser.parse_args(arguments)
    if given.list or not given.name:
        _list()
        return
    names = list(sources()) if given.name == ["all"] else given.name
    options = FetchOptions(out=given.out, include=tuple(given.include), revision=given.revision, unpack=given.unpack)
    with program(prog, note="the same command goes on"):
        if unknown := _unknown(names):
            raise LookupError(
                f"no address for {', '.join(unknown)}; there are {', '.join([*sources(), *training_sets()])}, and any "
                "OWNER/NAME of the hub. data/README.md names the others"
            )
        failed = [name for name in names if not _fetched(name, options)]
        sys.exit(int(bool(failed)))


def _fetched(name: str, options: FetchOptions) -> bool:
    """Whether all of it is there."""
    try:
        for path in _fetch_named(name, options):
            sys.stdout.write(f"{path}\n")
            if options.unpack and is_archive(path):
                folder, number = unpack(path)
                sys.stdout.write(f"{folder}: {number:,} files unpacked\n")
    except FetchFailed as error:
        sys.stderr.write(redacted(f"fetch: {name}: {error}\n"))
        return False
    return True


if __name__ == "__main__":
    main()
