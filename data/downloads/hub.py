"""The files of a data set on a Hugging Face hub, or a mirror of it: `huggingface_hub` lists them and knows the token.

HF_ENDPOINT names a mirror, HF_TOKEN a token (or the file that `hf auth login` writes), HF_HUB_OFFLINE=1 forbids to ask.
"""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from code_sandbox.redaction import clean_key, redacted
from data.downloads.errors import FetchFailed
from data.downloads.transfer import PASSING, RemoteFile, wish_s

HUB = "https://huggingface.co"
_LISTING = ".fetched.json"
_ATTEMPTS = 5
_LEFT_OUT = (".gitattributes",)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubListing:
    """What one version of a set holds."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    is_offline: bool = False
    """It is what was listed the last time."""


def endpoint() -> str:
    """The hub, or the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask anybody."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_headers() -> dict[str, str]:
    """Who asks: the token, if there is one.

    Raises:
        FetchFailed: The token holds what no token holds; it is not shown.
    """
    try:
        from huggingface_hub import get_token
    except ImportError:
        token = os.environ.get("HF_TOKEN")
    else:
        token = get_token()
    if not token:
        return {}
    try:
        return {"Authorization": f"Bearer {clean_key(token, 'HF_TOKEN')}"}
    except ValueError as error:
        raise FetchFailed(str(error)) from None


def if_refused(repo: str) -> str:
    """What to do when a hub wants to know who asks."""
    return (
        f"accept its licence, if it asks for that, on {HUB}/datasets/{repo}, make a token on {HUB}/settings/tokens, and set "
        "HF_TOKEN to it (without one, a hub says this of what is not there, too)"
    )


def if_missing(repo: str) -> str:
    """What to do when a hub has no such set or file."""
    told = "" if endpoint() == HUB else f"; the mirror {endpoint()} (HF_ENDPOINT) may not have it"
    return f"{repo} was renamed, is private (set HF_TOKEN), or never had it: see {HUB}/datasets/{repo}{told}"


def list_files(repo: str, folder: Path, *, revision: str, include: Sequence[str] = (), pause_s: float = 1.0) -> HubListing:
    """List a data set.

    Args:
        repo: `owner/name`.
        folder: Where its files are or will be; what was listed is remembered there for work offline.
        revision: Branch, tag or commit.
        include: Patterns of names, of which one must fit; empty is all.
        pause_s: Before the second attempt; doubled for each further one.

    Raises:
        FetchFailed: The hub does not say, or none of its files fits.
    """
    listing = _remembered(repo, folder) if is_offline() else _asked(repo, folder, revision, pause_s)
    wanted = tuple(
        file
        for file in listing.files
        if file.name not in _LEFT_OUT and (not include or any(fnmatch.fnmatchcase(file.name, one) for one in include))
    )
    if not wanted:
        there = ", ".join(file.name for file in listing.files[:10]) or "none"
        raise FetchFailed(f"{repo} has no file that fits {', '.join(include) or '*'}; it has {there}")
    return HubListing(repo=repo, commit=listing.commit, files=wanted, is_offline=listing.is_offline)


def _asked(repo: str, folder: Path, revision: str, pause_s: float) -> HubListing:
    headers = hub_headers()
    token = headers.get("Authorization", "").removeprefix("Bearer ")
    for attempt in range(_ATTEMPTS):
        try:
            commit, entries = _tree(repo, revision, token)
            break
        except FetchFailed:
            raise
        except Exception as error:  # the library raises what its transport raises
            wait_s = _wait_s(error, repo, token, pause_s * 2**attempt)
            if attempt == _ATTEMPTS - 1:
                raise _failed(repo, f"{_short(error)}; try again later, or set HF_ENDPOINT to a mirror", token) from error
            time.sleep(wait_s)
    files = {entry.path: [entry.size, _checksum(entry)] for entry in entries}
    _remember(repo, commit, files, folder)
    return HubListing(repo=repo, commit=commit, files=_remote(repo, commit, files, headers))


def _tree(repo: str, revision: str, token: str) -> tuple[str, list[Any]]:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile
    except ImportError as error:
        raise FetchFailed(f"{repo} is listed by huggingface_hub, which is not here: pip install huggingface_hub") from error
    api = HfApi(endpoint=endpoint(), token=token or False)
    commit = str(api.repo_info(repo, repo_type="dataset", revision=revision, timeout=30.0).sha or "")
    tree = api.list_repo_tree(repo, repo_type="dataset", revision=commit, recursive=True)
    return commit, [entry for entry in tree if isinstance(entry, RepoFile)]


def _wait_s(error: Exception, repo: str, token: str, pause_s: float) -> float:
    """How long to wait before asking again.

    Raises:
        FetchFailed: Asking again cannot help.
    """
    if isinstance(error, httpx.TransportError | TimeoutError):
        return pause_s
    response = getattr(error, "response", None)
    if response is None:
        raise _failed(repo, f"{_short(error)}; is {endpoint()} (HF_ENDPOINT) a hub?", token) from error
    if response.status_code in PASSING:
        return max(pause_s, min(wish_s(response.headers.get("Retry-After", "")), 60.0))
    if type(error).__name__ == "RevisionNotFoundError":
        raise _failed(repo, "it has no such --revision", token) from error
    # A hub answers 401 for what is not there, too, as long as it does not know who asks.
    advice = if_missing(repo) if response.status_code in (404, 410) else if_refused(repo)
    raise _failed(repo, f"{response.status_code} {response.reason_phrase}; {advice}", token) from error


def _failed(repo: str, reason: str, token: str) -> FetchFailed:
    return FetchFailed(redacted(f"{endpoint()}, data set {repo}: {reason}", token))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _checksum(entry: Any) -> str:
    return f"sha256:{entry.lfs.sha256}" if entry.lfs is not None else f"git:{entry.blob_id}"


def _remote(repo: str, commit: str, files: dict[str, Any], headers: dict[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            name=name,
            url=f"{endpoint()}/datasets/{repo}/resolve/{commit}/{quote(name)}",
            checksum=checksum,
            size=size,
            headers=headers,
            if_refused=if_refused(repo),
            if_missing=if_missing(repo),
        )
        for name, (size, checksum) in files.items()
    )


def _remember(repo: str, commit: str, files: dict[str, Any], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_LISTING}.{os.getpid()}.partial"
        partial.write_text(json.dumps({"repo": repo, "commit": commit, "files": files}), encoding="utf-8")
        partial.replace(folder / _LISTING)
    except OSError as error:
        raise FetchFailed(f"{folder} cannot be written: {error}; give another --out") from error


def _remembered(repo: str, folder: Path) -> HubListing:
    try:
        kept = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
        if kept["repo"] != repo:
            raise KeyError(repo)
        files = _remote(repo, kept["commit"], kept["files"], {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchFailed(
            f"HF_HUB_OFFLINE is set, and {folder} holds nothing that was fetched from {repo}; unset it, or copy the folder "
            "from a machine that has it"
        ) from error
    return HubListing(repo=repo, commit=kept["commit"], files=files, is_offline=True)
