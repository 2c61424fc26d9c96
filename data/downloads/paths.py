"""Names of files that others chose: none of them leads out of the folder that it is meant for."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from data.downloads.errors import FetchFailed

_DRIVE = re.compile(r"[A-Za-z]:")


def inside(folder: Path, name: str, whose: str) -> Path:
    """Where a file of this name lies in a folder.

    Args:
        folder: It may not leave.
        name: With `/` between its parts.
        whose: What holds the name, for the error.

    Raises:
        FetchFailed: The name is absolute, empty, holds `..`, or otherwise leads elsewhere.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or _DRIVE.match(name) or "\0" in name:
        raise FetchFailed(f"{whose} names a file {name[:200]!r}, which leads out of {folder}; nothing of it was written")
    return folder.joinpath(*parts)
