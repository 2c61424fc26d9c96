"""A page of what each step kept and dropped, with examples."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary
from agent.images import ImageFile, UnreadableImage, preview
from curation.errors import CurationError
from curation.folders import StepFolder, kind_of
from curation.rows import CuratedRow, write_text
from viewer.static_page import bar_chart, embedded, page, table

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
    header = ("step", "in", "kept", "dropped", "open", "waiting", "time")
    name = str(facts.get("name", run.name))
    body = f"<h1>Curation {html.escape(name)}</h1>" + table(header, rows)
    body += '<p class="soft">Open: nobody could decide, and not counted as wrong. Waiting: answers that a server owes.</p>'
    chart = bar_chart({folder.path.name: float(found["kept"]) for folder, found in steps})
    body += f'<section class="card"><h3>Rows that went on</h3>{chart}</section>'
    if facts.get("models"):
        body += _models(facts["models"])
    body += "".join(_step(folder, found, library, examples) for folder, found in steps)
    path = out or run / "report.html"
    write_text(path, page(f"Curation {name}", body))
    return path


def _facts(run: Path) -> dict[str, Any]:
    path = run / "run.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _models(models: dict[str, Any]) -> str:
    rows = [
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
    header = ("name", "model", "calls", "tokens read", "tokens written", "USD", "never answered", "USD with those at most")
    return "<h2>Models</h2>" + table(header, rows)


def _step(folder: StepFolder, found: dict[str, Any], library: ImageLibrary, examples: int) -> str:
    said = found["key"]["settings"]
    own = said.get("own", {}) if isinstance(said, dict) else ""
    body = (
        f"<h2>{html.escape(folder.path.name)}</h2><pre>{html.escape(json.dumps(own, ensure_ascii=False))}</pre>"
        if own
        else (f"<h2>{html.escape(folder.path.name)}</h2>")
    )
    if found["notes"]:
        body += f'<p class="soft">{html.escape(json.dumps(found["notes"], ensure_ascii=False)[:1000])}</p>'
    if (folder.path / "episodes").is_dir():
        body += f"<p>Its episodes: <code>deepeyes view {html.escape(str(folder.path / 'episodes'))}</code></p>"
    by_reason: dict[str, list[tuple[CuratedRow, str]]] = defaultdict(list)
    for row, reason in folder.dropped():
        by_reason[kind_of(reason)].append((row, reason))
    if found["dropped_by"]:
        body += table(
            ("source", "reason", "rows"), [[source, kind, f"{number:,}"] for source, kind, number in found["dropped_by"]]
        )
    for kind, dropped in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        body += f'<h3 class="bad">{html.escape(kind)}: {len(dropped):,}</h3><div class="grid">'
        body += "".join(_card(row, reason, library) for row, reason in dropped[:examples]) + "</div>"
    kept = folder.kept()[:examples]
    return body + f'<h3 class="good">kept</h3><div class="grid">{"".join(_card(row, "", library) for row in kept)}</div>'


def _card(row: CuratedRow, reason: str, library: ImageLibrary) -> str:
    shown = "".join(_image(name, library) for name in row.images[:4])
    facts = {name: value for name, value in row.facts.items() if not isinstance(value, list | dict)}
    parts = [
        f"<article>{shown}<p>{html.escape(row.question[:_SHOWN_CHARS])}</p>",
        f"<p><b>{html.escape(' or '.join(row.gold)[:_SHOWN_CHARS])}</b></p>",
        f'<p class="soft">{html.escape(row.key)} · {html.escape(row.group)} · {html.escape(row.part)}</p>',
    ]
    if facts:
        parts.append(f'<p class="soft">{html.escape(json.dumps(facts, ensure_ascii=False))}</p>')
    if reason:
        parts.append(f'<p class="bad">{html.escape(reason[:_SHOWN_CHARS])}</p>')
    return "".join(parts) + "</article>"


def _image(name: str, library: ImageLibrary) -> str:
    try:
        return embedded(preview(ImageFile(library.get(name)), _PREVIEW_PIXELS))
    except (OSError, UnreadableImage) as error:
        return f'<span class="bad">{html.escape(str(error))}</span>'
