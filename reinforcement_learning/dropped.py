"""`dropped.jsonl`: the rows that a run leaves out, each with its reason. Written by the check, read by the data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.files import write_whole
from agent.recipes import RecipeError
from reinforcement_learning.row_errors import RowError

NAME = "dropped.jsonl"


def write_dropped(path: Path, problems: Sequence[RowError]) -> None:
    """Write the file whole, or remove one that is there if there is nothing to leave out."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    lines = [
        json.dumps(
            {"file": problem.file, "row": problem.row, "reason": problem.kind, "detail": problem.detail}, ensure_ascii=False
        )
        for problem in problems
    ]
    write_whole(path, "\n".join(lines) + "\n")


def read_dropped(path: str | Path | None) -> set[tuple[str, int]]:
    """(file, row) of the rows to leave out; none if there is no such file.

    Raises:
        RecipeError: The file is broken.
    """
    if path is None or not Path(path).is_file():
        return set()
    found = set()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            found.add((str(entry["file"]), int(entry["row"])))
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{path}, line {number} is no dropped row ({error}); remove the file, it is made again"
            ) from error
    return found
