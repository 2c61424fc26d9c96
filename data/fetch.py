"""Download published evaluation files, on request alone.

    python -m data.fetch vstar hrbench4k … [--out datasets/eval]      or `all`, or `--list`

A download that broke off goes on where it stopped; a file is put in place when it is whole and its md5 is the published one.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import httpx
import yaml
from pydantic import BaseModel, ConfigDict

from agent.data_folders import data_folder

_SOURCES = Path(__file__).parent / "sources.yaml"
_ATTEMPTS = 5


class FetchedFile(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    url: str
    md5: str = ""
    """Empty where none is published."""


class FetchFailed(RuntimeError):
    """The file could not be had, or is not the published one."""


def sources() -> dict[str, FetchedFile]:
    """All that is known, by name."""
    content = yaml.safe_load(_SOURCES.read_text(encoding="utf-8"))
    return {name: FetchedFile.model_validate(entry) for name, entry in content.items()}


def fetch(source: FetchedFile, folder: Path, *, pause_s: float = 1.0, transport: httpx.BaseTransport | None = None) -> Path:
    """Download one file, or do nothing if it is there.

    Args:
        source: What.
        folder: Where; made if it is not there. An unfinished download is `<file>.partial`.
        pause_s: Before the second attempt; doubled for each further one.
        transport: For tests.

    Returns:
        The file.

    Raises:
        FetchFailed: The server does not give it, or its md5 is another one; what was downloaded is kept beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / source.file, folder / f"{source.file}.partial"
    if path.exists():
        return path
    last = ""
    with httpx.Client(transport=transport, follow_redirects=True, timeout=httpx.Timeout(60.0, connect=10.0)) as client:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(pause_s * 2 ** (attempt - 1))
            try:
                _download(client, source.url, partial)
                break
            except (httpx.HTTPError, OSError) as error:
                last = f"{type(error).__name__}: {error}"
        else:
            kept = partial.stat().st_size if partial.exists() else 0
            raise FetchFailed(f"{source.url}: {last}; {kept:,} bytes are kept, and the same command goes on from there")
    found = _md5(partial)
    if source.md5 and found != source.md5:
        wrong = partial.with_suffix(".wrong")
        partial.replace(wrong)
        raise FetchFailed(
            f"{source.file} has md5 {found}, the published file {source.md5}: it was changed, or is no such file. It is "
            f"kept as {wrong}; use it under its own name if you mean to, and say so with your scores"
        )
    partial.replace(path)
    return path


def _download(client: httpx.Client, url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    # Bytes of the file itself: a compressed stream cannot be gone on with.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # nothing is left after what is there
            return
        response.raise_for_status()
        mode = "ab" if response.status_code == 206 else "wb"  # a server without ranges sends it all again
        with partial.open(mode) as file:
            for chunk in response.iter_bytes():
                file.write(chunk)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="data.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*")
    parser.add_argument("--out", type=Path, help="folder for the files; by default datasets/eval, or eval in DEEPEYES_DATA")
    parser.add_argument("--list", action="store_true", help="names and addresses")
    options = parser.parse_args(arguments)
    known = sources()
    if options.list or not options.name:
        sys.stdout.writelines(f"{name:20} {source.file:30} {source.url}\n" for name, source in known.items())
        return
    names = list(known) if options.name == ["all"] else options.name
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(
            f"fetch: no address for {', '.join(unknown)}; there are {', '.join(known)}. data/README.md names the others"
        )
    folder = options.out or data_folder("eval")
    failed = False
    for name in names:
        try:
            sys.stdout.write(f"{fetch(known[name], folder)}\n")
        except FetchFailed as error:
            failed = True
            sys.stderr.write(f"fetch: {name}: {error}\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
