"""A page of what each step kept and dropped, with examples."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from agent.image_library import ImageLibrary
from agent.images import ImageFile, UnreadableImage, preview
from curation.errors import CurationError
from curation.folders import StepFolder, kind_of
from curation.rows import CuratedRow, write_text
from viewer.charts import bar_chart
from viewer.static_page import embedded
from viewer.templates import render

_PREVIEW_PIXELS = 40_000
_SHOWN_CHARS = 400


def write_report(run: Path, out: Path | None, *, examples: int = 3) -> Path:
    """Write the page; where it is.

    Raises:
        CurationError: The folder is no run.
    """
    folders = [StepFolder(path) for path in sorted(run.glob("[0-9][0-9]_*")) if (path / "key.json").exists()]
    if not folders:
        raise CurationError(f"{run} holds no finished step; start it with `deepeyes curate run FILE.yaml`")
    facts = _facts(run)
    library = ImageLibrary(Path(facts.get("store", "")))
    steps = [(folder, folder.summary() or {}) for folder in folders]
    rows = [
        [
            folder.path.name,
            *(f"{found[name]:,}" for name in ("in", "kept", "dropped", "open", "waiting")),
            f"{found['seconds']:.1f} s",
        ]
        for folder, found in steps
    ]
    page = render(
        Path(__file__).with_suffix(".html"),
        title=f"Curation {facts.get('name', run.name)}",
        rows=rows,
        chart=bar_chart({folder.path.name: float(found["kept"]) for folder, found in steps}),
        models=_models(facts.get("models") or {}),
        steps=[_step(folder, found, examples) for folder, found in steps],
        image=lambda name: _image(name, library),
        shown_chars=_SHOWN_CHARS,
    )
    path = out or run / "report.html"
    write_text(path, page)
    return path


def _facts(run: Path) -> dict[str, Any]:
    path = run / "run.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _models(models: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            str(one["model"]),
            *(f"{one[what]:,}" for what in ("calls", "prompt_tokens", "reply_tokens")),
            f"{one['usd']:,.2f}",
            f"{one['unanswered']:,}",
            f"{one['usd_at_most']:,.2f}",
        ]
        for name, one in models.items()
    ]


def _step(folder: StepFolder, found: dict[str, Any], examples: int) -> dict[str, Any]:
    said = found["key"]["settings"]
    own = said.get("own", {}) if isinstance(said, dict) else ""
    by_reason: dict[str, list[tuple[CuratedRow, str]]] = defaultdict(list)
    for row, reason in folder.dropped():
        by_reason[kind_of(reason)].append((row, reason))
    return {
        "name": folder.path.name,
        "settings": json.dumps(own, ensure_ascii=False) if own else "",
        "notes": json.dumps(found["notes"], ensure_ascii=False)[:1000] if found["notes"] else "",
        "episodes": folder.path / "episodes" if (folder.path / "episodes").is_dir() else None,
        "dropped_by": [[source, kind, f"{number:,}"] for source, kind, number in found["dropped_by"]],
        "dropped": [
            (kind, f"{len(dropped):,}", [_example(row, reason) for row, reason in dropped[:examples]])
            for kind, dropped in sorted(by_reason.items(), key=lambda item: -len(item[1]))
        ],
        "kept": [_example(row, "") for row in folder.kept()[:examples]],
    }


def _example(row: CuratedRow, reason: str) -> dict[str, Any]:
    facts = {name: value for name, value in row.facts.items() if not isinstance(value, list | dict)}
    return {"row": row, "facts": json.dumps(facts, ensure_ascii=False) if facts else "", "reason": reason}


def _image(name: str, library: ImageLibrary) -> Markup:
    try:
        return embedded(preview(ImageFile(library.get(name)), _PREVIEW_PIXELS))
    except (OSError, UnreadableImage) as error:
        return Markup('<span class="bad">{}</span>').format(error)
