"""Run a command as a user without privileges who can nevertheless read our interpreter, our packages and this project.

    unshare --mount --propagation private python tests/as_other_user.py UID COMMAND …

As root. Directories on the way that are closed to others are replaced, in this mount namespace only, by open ones that hold
just what is needed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def closed_parent(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that others may not pass."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


def main() -> None:
    uid, command = int(sys.argv[1]), sys.argv[2:]
    project = Path(__file__).resolve().parent.parent
    needed = dict.fromkeys(
        Path(p) for name in (sys.prefix, sys.base_prefix, project) for p in (name, os.path.realpath(name))
    )
    kept = [(path, parent) for path in needed if (parent := closed_parent(path)) is not None]
    stash = Path(tempfile.mkdtemp())
    for number, (path, _) in enumerate(kept):
        (stash / str(number)).mkdir()
        subprocess.run(["mount", "--bind", path, stash / str(number)], check=True)
    for parent in dict.fromkeys(parent for _, parent in kept):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "open", parent], check=True)
    for number, (path, _) in enumerate(kept):
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", stash / str(number), path], check=True)
    os.environ["HOME"] = "/nonexistent"
    os.chdir(project)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execvp(command[0], command)


main()
