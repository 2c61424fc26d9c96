"""What a machine of a cluster has. Standard library only: Ray sends this module to the node by value, so that a node which
lacks the repository can say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import resource
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TypedDict

_TIMEOUT_S = 5.0
_SOURCES = (".py", ".yaml", ".txt")


class ProbeQuestion(TypedDict):
    """What to look at."""

    nonce: str
    nonce_file: str
    """Holds the nonce, if the folder is the one that the driver wrote to."""
    paths: list[str]
    packages: list[str]
    rooms: list[str]
    """Packages of this repository whose files must be the same everywhere."""
    secrets: list[str]
    interface_variables: list[str]
    health_urls: list[str]
    """Asked for `/health`."""
    listening: list[str]
    """URLs of which only the port is tried."""


class Facts(TypedDict):
    """What was found."""

    host: str
    python: str
    versions: dict[str, str]
    """`missing` for a package that is not installed."""
    source: str | None
    """Digest of the rooms' files; None: they cannot be imported."""
    shared: bool
    unreadable: list[str]
    secrets: dict[str, str]
    """A digest of each that is set, salted with the nonce; never the value."""
    interfaces: list[str]
    wrong_interfaces: dict[str, str]
    unreachable: dict[str, str]
    """Reason by URL."""
    shm_bytes: int
    open_files: int


def look(question: ProbeQuestion) -> Facts:
    """Answer for the machine that this runs on."""
    interfaces = sorted(name for _, name in socket.if_nameindex())
    unreachable = {url: reason for url in question["health_urls"] if (reason := _health(url))}
    unreachable |= {url: reason for url in question["listening"] if (reason := _listens(url))}
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - Ray and NCCL use this very folder
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in question["packages"]},
        "source": source_digest(question["rooms"]),
        "shared": _read(question["nonce_file"]) == question["nonce"],
        "unreadable": [path for path in question["paths"] if not os.access(path, os.R_OK)],
        "secrets": {
            name: hashlib.sha256((question["nonce"] + os.environ[name]).encode()).hexdigest()[:16]
            for name in question["secrets"]
            if os.environ.get(name)
        },
        "interfaces": interfaces,
        "wrong_interfaces": {
            name: os.environ[name]
            for name in question["interface_variables"]
            if os.environ.get(name) and not _names_one(os.environ[name], interfaces)
        },
        "unreachable": unreachable,
        "shm_bytes": shm.f_frsize * shm.f_blocks if shm else 0,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def source_digest(rooms: list[str]) -> str | None:
    """One digest of all source files of the rooms, or None if a room cannot be imported."""
    digest = hashlib.sha256()
    for room in rooms:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(room)
            if spec is not None and spec.origin is not None:
                folder = Path(spec.origin).parent
                for path in sorted(folder.rglob("*")):
                    if path.suffix in _SOURCES and path.is_file():
                        digest.update(f"{room}/{path.relative_to(folder)}\0".encode())
                        digest.update(path.read_bytes())
                continue
        return None
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None


def _names_one(wanted: str, interfaces: list[str]) -> bool:
    """NCCL and Gloo take several prefixes; `=` asks for the exact name, `^` names those to leave out."""
    if wanted.startswith("^"):
        return True
    exact = wanted.startswith("=")
    return any(
        name == part or (not exact and name.startswith(part))
        for part in wanted.removeprefix("=").split(",")
        for name in interfaces
        if part
    )


def _health(url: str) -> str:
    if url.startswith("unix:"):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(url.removeprefix("unix:"))
        except OSError as error:
            return str(error)
        return ""
    # A proxy of the machine has no business between a trainer and its sandbox; the client ignores it as well.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url.rstrip("/") + "/health", timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        # A server that wants a token is there.
        return "" if error.code in (401, 403) else str(error)
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""


def _listens(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), _TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""
