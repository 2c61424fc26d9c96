"""A step's folder: what it was made from, what it kept, what it dropped and why.

key.json           settings, parent (the digest of the rows that came in) and code; with the step's counts. Written last:
                   a folder without it is not finished
kept.parquet       rows of curation/rows.py
dropped.parquet    the same with a reason each; `open: …` are rows that nobody could decide
journal/           what was asked of models, one line an answer (journal.py)
episodes/          recorded episodes, as `deepeyes view` shows them
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from curation.errors import CurationError
from curation.rows import CuratedRow, digest_rows, read_rows, write_rows, write_text

OPEN = "open: "
"""How the reason of a row begins that nobody could decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What a step made of its rows."""

    kept: Sequence[CuratedRow]
    dropped: Sequence[tuple[CuratedRow, str]] = ()
    waiting: int = 0
    """Answers that an outage held back; the step asks for them again when the run is repeated."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts for the report and the card."""


def code_of(*modules: ModuleType) -> str:
    """Sha256 of programs; comments, docstrings and layout do not count, so that a word in them repeats nothing."""
    found = hashlib.sha256()
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
        found.update(ast.dump(tree).encode())
    return found.hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class StepFolder:
    """One step's folder in a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def summary(self) -> dict[str, Any] | None:
        """What `key.json` says; None if the step was not finished.

        Raises:
            CurationError: It is broken.
        """
        path = self.path / "key.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CurationError(f"{path} is no JSON ({error}); delete it, and the step is made again") from error
        return found

    def finished(self, key: dict[str, Any]) -> bool:
        """Whether the step was done with this key, and waits for nobody."""
        found = self.summary()
        return found is not None and found["key"] == key and not found["waiting"]

    def kept(self) -> list[CuratedRow]:
        """Rows that went on."""
        return [row for row, _ in read_rows(self.path / "kept.parquet")]

    def dropped(self) -> list[tuple[CuratedRow, str]]:
        """Rows that did not, each with its reason."""
        return read_rows(self.path / "dropped.parquet")

    def write(self, key: dict[str, Any], outcome: StepOutcome, *, seconds: float, num_in: int) -> None:
        """Replace what the folder holds; its key goes first and comes last, so that a kill leaves no lie.

        Raises:
            CurationError: There is no room for it.
        """
        (self.path / "key.json").unlink(missing_ok=True)
        dropped = list(outcome.dropped)
        write_rows(self.path / "kept.parquet", [row.record() for row in outcome.kept], of_step=True)
        write_rows(self.path / "dropped.parquet", [row.record(reason) for row, reason in dropped], of_step=True)
        reasons = Counter((row.source, kind_of(reason)) for row, reason in dropped)
        summary = {
            "key": key,
            "rows_digest": digest_rows(outcome.kept),
            "in": num_in,
            "kept": len(outcome.kept),
            "dropped": sum(not reason.startswith(OPEN) for _, reason in dropped),
            "open": sum(reason.startswith(OPEN) for _, reason in dropped),
            "waiting": outcome.waiting,
            "kept_by_source": dict(Counter(row.source for row in outcome.kept)),
            "dropped_by": [[source, kind, count] for (source, kind), count in sorted(reasons.items())],
            "seconds": round(seconds, 3),
            "notes": outcome.notes,
        }
        write_text(self.path / "key.json", json.dumps(summary, indent=1, ensure_ascii=False))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time finishes a step; another waits, and finds it done."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def kind_of(reason: str) -> str:
    """A reason without what differs from row to row, which stands behind a colon or in brackets."""
    is_open = reason.startswith(OPEN)
    return (OPEN if is_open else "") + reason.removeprefix(OPEN).partition(":")[0].partition(" (")[0]
