"""The finished set: RL rows, conversations for the cold start, a card, and a manifest of how it came about."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, Literal

from cold_start.check_data import conversation_problems
from curation.card import card
from curation.conversations import conversations
from curation.errors import CurationError
from curation.folders import StepFolder, StepOutcome
from curation.manifest import manifest_of
from curation.rows import no_room, write_rows, write_text
from curation.settings import Strict
from curation.work import Work


class ExportSettings(Strict):
    """What is written into the store's `sets/NAME`."""

    rl: Literal["parquet_names"] | None = "parquet_names"
    """The rows of the part `rl`."""
    sft: Literal["llamafactory"] | None = None
    """The trajectories that `synthesise` kept; those that the cold start could not read stand in dropped.jsonl."""
    card: bool = True


SETTINGS = ExportSettings
CODE = ("cold_start.check_data", "curation.card", "curation.conversations", "curation.manifest", "curation.rows")


async def apply(work: Work) -> StepOutcome:
    """Write the files; each is complete or absent, the manifest last.

    Raises:
        CurationError: There is nothing to export, or no room.
    """
    return await asyncio.to_thread(_export, work)


def _export(work: Work) -> StepOutcome:
    settings: ExportSettings = work.step.settings
    folder = work.curation.file.store / "sets" / work.curation.file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
    except OSError as error:
        raise no_room(folder, error) from error
    files = []
    rl = [row for row in work.rows if row.part == "rl"]
    if settings.rl:
        if not rl:
            raise CurationError("export: the part `rl` has no row; set rl: null, or look at the report for where they went")
        write_rows(folder / "rl.parquet", [row.store_record() for row in rl], of_step=False)
        files.append("rl.parquet")
    talks, left_out = list[dict[str, Any]](), list[dict[str, str]]()
    if settings.sft:
        talks, left_out = _readable(work)
        write_text(folder / "sft.json", json.dumps(talks, ensure_ascii=False, indent=0))
        files.append("sft.json")
    dropped = _dropped(work) + left_out
    write_text(folder / "dropped.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in dropped))
    manifest = manifest_of(work, rl=rl, talks=talks, files=[folder / name for name in files])
    if settings.card:
        write_text(folder / "README.md", card(manifest, work.curation))
        files.append("README.md")
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    by_part = Counter(row.part for row in work.rows)
    notes = {"set": str(folder), "files": files, "rows_by_part": dict(by_part), "conversations left out": len(left_out)}
    return StepOutcome(kept=work.rows, notes=notes)


def _readable(work: Work) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """(conversations, lines about those that the cold start could not read).

    Raises:
        CurationError: There is none to train on.
    """
    talks, left_out = list[dict[str, Any]](), list[dict[str, str]]()
    for talk in conversations(work.rows, work.curation.directory, work.library):
        if problems := conversation_problems(talk):
            about = {"step": work.step.folder, "key": talk["key"], "source": talk["source"]}
            left_out.append(about | {"reason": "; ".join(problems)})
        else:
            talks.append(talk)
    if not talks:
        why = f"all are left out, the first: {left_out[0]['reason']}" if left_out else "add a step `synthesise` before it"
        raise CurationError(f"export: no row has a trajectory to train on; {why}, or set sft: null")
    return talks, left_out


def _dropped(work: Work) -> list[dict[str, str]]:
    lines = []
    for path in sorted(work.curation.directory.glob("[0-9][0-9]_*")):
        if path.name < work.step.folder and (path / "key.json").exists():
            lines += [
                {"step": path.name, "key": row.key, "source": row.source, "reason": reason}
                for row, reason in StepFolder(path).dropped()
            ]
    return lines
