"""How a set came about, as plain values."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.prompts import load_prompt
from curation.folders import StepFolder
from curation.rows import CuratedRow
from curation.settings import Curation
from curation.spending import spent_by_model
from curation.work import Work
from judge.client import load_judge_prompt

_VERSIONS = ("deepeyes", "datasketch", "ImageHash", "pyarrow", "pillow", "huggingface_hub")


def manifest_of(
    work: Work, *, rl: Sequence[CuratedRow], talks: Sequence[dict[str, Any]], files: Iterable[Path]
) -> dict[str, Any]:
    """All that the card and a later reader need."""
    curation = work.curation
    names = {name for row in work.rows for name in row.images}
    return {
        "format": 1,
        "name": curation.file.name,
        "seed": curation.file.seed,
        "sources": [source.model_dump(mode="json") for source in curation.file.sources],
        "rows": {
            "rl": len(rl),
            "sft": len(talks),
            "rl_by_group": dict(Counter(row.group for row in rl)),
            "rl_by_source": dict(Counter(row.source for row in rl)),
            "without_image": sum(not row.images for row in work.rows),
            "images": len(names),
        },
        "steps": steps_of(curation),
        "models": spent_by_model(curation),
        "teachers": dict(Counter(str(talk.get("teacher", "")) for talk in talks)),
        "prompts": _prompts(curation),
        "judge": {
            "model": curation.file.judge.model if curation.file.judge.base_urls else "rules alone",
            "prompt": curation.file.judge.prompt,
            "prompt_sha256": load_judge_prompt(curation.file.judge.prompt).sha256,
        },
        "versions": {name: _version(name) for name in _VERSIONS},
        "sha256": {path.name: _checksum(path) for path in files},
    }


def steps_of(curation: Curation) -> list[dict[str, Any]]:
    """What each finished step was, kept and dropped."""
    found = []
    for path in [curation.directory / "00_sources", *(curation.directory / step.folder for step in curation.steps)]:
        if (summary := StepFolder(path).summary()) is not None:
            names = ("in", "kept", "dropped", "open", "waiting", "dropped_by", "kept_by_source", "seconds", "notes")
            settings = summary["key"]["settings"]
            kind = settings.get("kind") if isinstance(settings, dict) else "sources"
            found.append({"folder": path.name, "kind": kind, "settings": settings} | {name: summary[name] for name in names})
    return found


def _prompts(curation: Curation) -> dict[str, str]:
    settings = curation.agent_settings()
    names = {"think"} | ({settings.prompt} if settings.prompt else set())
    asked = any(step.kind in ("sample", "synthesise") for step in curation.steps)
    return {name: load_prompt(name, settings=settings).sha256 for name in sorted(names)} if asked else {}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
