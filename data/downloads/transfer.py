"""One file over HTTP: resumed after any interruption, checked, and put in place only when it is the one that was asked for.

FILE.partial         what has arrived; two processes never write one
FILE.partial.json    by which mark (ETag or date) the server can tell that the rest belongs to it
FILE.wrong           arrived whole, and is something else

`huggingface_hub` 1.33 begins a file anew when its process was killed (each writes a file of its own, 4228 there), which
for an archive of 12 GB is most of a day on a slow line; so its listings, addresses and tokens are used, and this transfer.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

from code_sandbox.redaction import redacted, secrets_of
from data.downloads.contents import content_problem, page_problem
from data.downloads.errors import FetchFailed
from data.downloads.paths import inside

_ATTEMPTS = 5
"""In a row without a byte more than before."""
_LONGEST_PAUSE_S = 60.0
_LONGEST_WISH_S = 600.0
"""A server that asks to wait longer is left alone until somebody starts the command again."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which asking again may help."""
_CHUNK = 1 << 20
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file and where it is to be had."""

    name: str
    """Below the folder, with `/`."""
    url: str
    checksum: str = ""
    """`md5:…`, `sha256:…` or `git:…` (of a blob); empty where none is published."""
    size: int | None = None
    """In bytes, where it is known."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent to the host of `url` alone."""
    if_refused: str = ""
    """What to do when the server wants to know who asks."""
    if_missing: str = ""
    """What to do when it is not there."""


class _Later(Exception):
    """Asking again may help."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def new_client(transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A client for `download`, which any number of threads may share."""
    return httpx.Client(transport=transport, follow_redirects=True, timeout=httpx.Timeout(60.0, connect=10.0))


def download(
    file: RemoteFile,
    folder: Path,
    *,
    client: httpx.Client,
    pause_s: float = 1.0,
    arrived: Callable[[int], object] = lambda _: None,
) -> Path:
    """Bring one file, or do nothing if it is there.

    Args:
        file: What.
        folder: Where; made if it is not there.
        client: Of `new_client`.
        pause_s: Before the second attempt; doubled for each further one.
        arrived: Told how many bytes came.

    Raises:
        FetchFailed: The server does not give it, it is not the published one, or there is no room; what has arrived is kept.
    """
    path = inside(folder, file.name, file.url)
    try:
        if path.exists():
            _check_there(file, path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("ab") as out:
            _lock(out, partial)
            if path.exists():  # another process has finished it meanwhile
                partial.unlink(missing_ok=True)
                return path
            _Transfer(file, path, out, client, pause_s, arrived).run()
    except OSError as error:  # what httpx raises is none
        raise _no_room(path, error) from error
    return path


def _check_there(file: RemoteFile, path: Path) -> None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        problem: str | None = f"it has {size:,} bytes, the published file {file.size:,}"
    else:
        problem = None if file.checksum else content_problem(path, file.name)
    if problem:
        raise FetchFailed(f"{path} is there, but {problem}; move it away, and the same command fetches it")


def _lock(out: IO[bytes], partial: Path) -> None:
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FetchFailed(f"{partial} is being written by another process; wait for it") from error
    except OSError:  # a file system without locks
        return


def _no_room(path: Path, error: OSError) -> FetchFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchFailed(
            f"there is no room for {path}: {error.strerror}; what has arrived is kept, make room or give another --out, and "
            "the same command goes on"
        )
    return FetchFailed(f"{path} cannot be written: {error}; give another --out")


class _Transfer:
    """The attempts for one file; `out` stands at the end of what has arrived."""

    def __init__(
        self,
        file: RemoteFile,
        path: Path,
        out: IO[bytes],
        client: httpx.Client,
        pause_s: float,
        arrived: Callable[[int], object],
    ) -> None:
        self._file = file
        self._path = path
        self._out = out
        self._partial = Path(out.name)
        self._note = Path(out.name + ".json")
        self._client = client
        self._pause_s = pause_s
        self._arrived = arrived
        self._mark = self._noted()
        self._resumed = False

    def run(self) -> None:
        """Raises:
        FetchFailed: It cannot be had, or is another one.
        """
        if (not self._mark and not self._file.checksum) or self._is_too_long():
            self._start_anew()
        self._resumed = self._out.tell() > 0
        self._complete()
        if not self._is_right() and self._resumed:
            # The parts may be of two versions of the file, where a server marks none.
            self._start_anew()
            self._complete()
        self._accept()

    def _complete(self) -> None:
        failures, most = 0, self._out.tell()
        while True:
            try:
                if self._file.size is None or self._out.tell() != self._file.size:
                    self._attempt()
                return
            except (_Later, httpx.TransportError, httpx.TooManyRedirects, httpx.DecodingError) as error:
                self._out.flush()
                failures = failures + 1 if self._out.tell() <= most else 1
                most = max(most, self._out.tell())
                wait_s = error.wait_s if isinstance(error, _Later) else 0.0
                if failures >= _ATTEMPTS or wait_s > _LONGEST_WISH_S:
                    raise self._failed(self._outage(error, wait_s)) from error
                time.sleep(max(wait_s, min(self._pause_s * 2 ** (failures - 1), _LONGEST_PAUSE_S)))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._failed(f"{type(error).__name__}: {error}") from error

    def _outage(self, error: Exception, wait_s: float) -> str:
        said = str(error) if isinstance(error, _Later) else f"{type(error).__name__}: {error}"
        when = f", in {wait_s:,.0f} s" if wait_s > _LONGEST_WISH_S else ""
        return f"{said}; {self._out.tell():,} bytes are kept, and the same command goes on from there{when}"

    def _failed(self, reason: str) -> FetchFailed:
        secrets = secrets_of(self._file.url)
        return FetchFailed(redacted(f"{self._file.url}: {reason}", *secrets, *self._file.headers.values()))

    def _attempt(self) -> None:
        """Ask for what is missing.

        Raises:
            _Later: Asking again may help.
            FetchFailed: It cannot.
        """
        start = self._out.tell()
        # Bytes of the file itself: a compressed stream cannot be gone on with.
        headers = {**self._file.headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self._mark and not self._mark.startswith("W/"):
                headers["If-Range"] = self._mark
        with self._client.stream("GET", self._file.url, headers=headers) as response:
            if response.status_code == 416 and start:
                self._at_the_end(response, start)
                return
            self._check_status(response)
            self._refuse_page(response)
            whole = self._continue(response, start) if response.status_code == 206 else self._begin(response)
            self._check_room(whole)
            for chunk in response.iter_bytes():
                self._out.write(chunk)
                self._arrived(len(chunk))
        self._out.flush()
        if whole is not None and self._out.tell() != whole:
            have = self._out.tell()
            if have > whole:
                self._start_anew()
            raise _Later(f"{have:,} of {whole:,} bytes came")

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        said = f"{status} {response.reason_phrase}"
        if status in PASSING:
            raise _Later(said, wish_s(response.headers.get("Retry-After", "")))
        if status in (401, 403, 407, 451):
            raise self._failed(f"{said}; {self._file.if_refused or self._by_hand()}")
        if status in (404, 410):
            raise self._failed(f"{said}; {self._file.if_missing or self._by_hand()}")
        raise self._failed(f"{said}; {self._by_hand()}")

    def _by_hand(self) -> str:
        return f"open it in a browser, and save it as {self._path}"

    def _refuse_page(self, response: httpx.Response) -> None:
        """Before a byte that has arrived earlier is given up for it."""
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html") and (problem := page_problem(b"<html", self._file.name)):
            raise self._failed(f"{problem} {self._file.if_refused}".strip())

    def _continue(self, response: httpx.Response, start: int) -> int | None:
        """The whole size by the answer with the rest."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        mark = _mark_of(response)
        is_other = bool(mark and self._mark and mark != self._mark)
        if found is None or int(found[1]) != start or not _is_plain(response) or is_other:
            self._start_anew()
            raise _Later("the file there is not the one of which a part has arrived")
        self._resumed = True
        return self._checked_size(None if found[2] == "*" else int(found[2]))

    def _begin(self, response: httpx.Response) -> int | None:
        """The whole size by an answer with all of it."""
        length = response.headers.get("Content-Length", "")
        whole = self._checked_size(int(length) if length.isdecimal() and _is_plain(response) else None)
        self._start_anew()
        self._mark = _mark_of(response) if _is_plain(response) else ""
        if self._mark:
            self._note.write_text(json.dumps({"url": self._file.url, "mark": self._mark}), encoding="utf-8")
        return whole

    def _checked_size(self, offered: int | None) -> int | None:
        if self._file.size is not None and offered is not None and offered != self._file.size:
            raise self._failed(f"the server offers {offered:,} bytes, the published file has {self._file.size:,}")
        return offered if self._file.size is None else self._file.size

    def _at_the_end(self, response: httpx.Response, start: int) -> None:
        """Nothing is left behind what has arrived: it is whole, or too long."""
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        if whole.isdecimal() and int(whole) == start:
            return
        if not whole.isdecimal() and self._file.checksum and self._is_right():
            return
        self._start_anew()
        raise _Later(f"{start:,} bytes have arrived of a file of {whole or 'another size'}")

    def _check_room(self, whole: int | None) -> None:
        missing = (whole or 0) - self._out.tell()
        free = shutil.disk_usage(self._partial.parent).free
        if missing and missing + _SPARE_BYTES > free:
            raise FetchFailed(
                f"{self._path} needs {missing:,} more bytes, {self._partial.parent} has room for {free:,}; make room, or "
                "give another --out, and the same command goes on"
            )

    def _start_anew(self) -> None:
        if self._out.tell():
            self._out.seek(0)
            self._out.truncate()
        self._note.unlink(missing_ok=True)
        self._mark, self._resumed = "", False

    def _is_too_long(self) -> bool:
        return self._file.size is not None and self._out.tell() > self._file.size

    def _noted(self) -> str:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            return str(noted["mark"]) if noted["url"] == self._file.url else ""
        return ""

    def _is_right(self) -> bool:
        self._out.flush()
        return not self._file.checksum or _checksum(self._partial, self._file.checksum) == self._file.checksum

    def _accept(self) -> None:
        """Put it in place.

        Raises:
            FetchFailed: It is something else; it is kept as `.wrong`.
        """
        self._out.flush()
        if self._is_right():
            problem = None if self._file.checksum else content_problem(self._partial, self._file.name)
        else:
            kind, _, published = self._file.checksum.partition(":")
            found = _checksum(self._partial, self._file.checksum).partition(":")[2]
            problem = f"it has {kind} {found}, the published file {published}: it was changed, or is no such file"
        self._note.unlink(missing_ok=True)
        if problem is None:
            os.fsync(self._out.fileno())
            self._partial.replace(self._path)
            return
        wrong = self._path.with_name(f"{self._path.name}.wrong")
        self._partial.replace(wrong)
        raise self._failed(
            f"what came is not {self._path.name}: {problem}. It is kept as {wrong}; use it under its own name if you mean "
            "to, and say so with your scores"
        )


def _is_plain(response: httpx.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() in ("", "identity")


def _mark_of(response: httpx.Response) -> str:
    """What tells this version of the file from others: a strong ETag, or the time of its last change."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", "") or etag)


def wish_s(text: str) -> float:
    """Seconds of a `Retry-After`, which may be a date; 0 if it is neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _checksum(path: Path, like: str) -> str:
    """A file's checksum of the same kind as another."""
    kind = like.partition(":")[0]
    digest: Any = hashlib.md5(usedforsecurity=False) if kind == "md5" else hashlib.sha256()
    if kind == "git":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    for block in _blocks(path):
        digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            yield block
