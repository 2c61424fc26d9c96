"""A run's page: what was asked of whom, accuracy with its interval, tool use, and episodes behind the numbers."""

from __future__ import annotations

import html
import itertools
import json
from pathlib import Path
from typing import Any

from evaluation.html import episode_card, page, table
from evaluation.runner import latest_episodes

_EPISODES_OF_A_KIND = 8


def percent(value: float | None) -> str:
    """A share for a reader; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def accuracy_row(name: str, totals: dict[str, Any]) -> list[str]:
    """One line of the table of accuracies."""
    low, high = totals["accuracy_interval"] or (None, None)
    return [
        name,
        str(totals["items"]),
        percent(totals["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        percent(totals["tool_rate"]),
        str(totals["tool_errors"]),
        str(totals["not_evaluated"]),
    ]


def write_run_report(directory: Path, path: Path) -> None:
    """Write the page of a scored run.

    Raises:
        FileNotFoundError: The run was not scored yet.
    """
    run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    scores = [json.loads(line) for line in (directory / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    header = ["", "items", "accuracy", "95 % interval", "tool used", "tool errors", "not evaluated"]
    rows = [accuracy_row(name or "(none)", totals) for name, totals in summary["categories"].items()]
    rows.append(accuracy_row("all (micro)", summary))
    settings = [[key, str(value)] for key, value in run.items()] + [["scoring profile", summary["profile"]]]
    counts = [[f"decided by {name}", str(number)] for name, number in sorted(summary["decided_by"].items())]
    counts += [[f"stopped: {name}", str(number)] for name, number in sorted(summary["stop_reasons"].items())]
    body = f"""
<h1>{html.escape(run["benchmark"])}: {percent(summary["accuracy"])}</h1>
<p class="soft">{html.escape(run["model"])} · mode {html.escape(run["mode"])}
 · mean over categories {percent(summary["macro_accuracy"])}</p>
<section class="card">{table(header, rows, strong=len(rows) - 1)}</section>
<div class="grid"><section class="card"><h3>What was run</h3>{table(["", ""], settings)}</section>
<section class="card"><h3>Who decided, and how episodes ended</h3>{table(["", ""], counts)}</section></div>
{_episodes(directory, scores)}
"""
    partial = path.with_suffix(".partial")
    partial.write_text(page(f"{run['benchmark']}: {run['model']}", body), encoding="utf-8")
    partial.replace(path)


def _episodes(directory: Path, scores: list[dict[str, Any]]) -> str:
    chosen: dict[str, tuple[str, dict[str, Any]]] = {}
    for title, correct in (("Not evaluated", None), ("Wrong", False), ("Right", True)):
        of_kind = (row for row in scores if row["correct"] is correct)
        for row in itertools.islice(of_kind, _EPISODES_OF_A_KIND):
            chosen[row["item_id"]] = (title, row)
    sections: dict[str, list[str]] = {}
    for item_id, episode in latest_episodes(directory):
        if item_id in chosen:
            title, row = chosen[item_id]
            card = episode_card(item_id, episode, gold=row["gold"], correct=row["correct"])
            sections.setdefault(title, []).append(card)
    return "".join(f"<h2>{title}</h2>{''.join(cards)}" for title, cards in sections.items())
