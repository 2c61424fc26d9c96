"""A run's page: scores with what they mean, tool use, a second run beside it, and the episodes behind every number.

Beside it the same as Markdown, CSV and JSON. All of it is made from run.json, summary.json and scores.jsonl.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from agent.files import write_whole
from evaluation.analysis.analytics import ToolUse, analyse
from evaluation.analysis.compare import Comparison, compare_runs
from evaluation.benchmarks import load_benchmark
from evaluation.reports.episodes import listed_episodes, result_of
from evaluation.reports.names import short_names
from evaluation.reports.published import published, warnings_for
from evaluation.runs.provenance import Provenance, read_provenance
from evaluation.runs.provenance import as_json as provenance_json
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.shortfall import not_evaluated, shortfall
from evaluation.runs.summary import RunSummary, read_summary
from evaluation.runs.summary import as_json as summary_json
from evaluation.statistics import Totals
from viewer.charts import bar_chart
from viewer.entrance import VIEWER
from viewer.templates import link_to, render

_EPISODES = 150
_NAMED = 10
_PAIRED = 60
_SECTIONS = ("tool use", "first call", "number of calls", "decided by", "format", "code")


def percent(value: float | None) -> str:
    """A share for a reader; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def interval(counted: Totals) -> str:
    """The interval of an accuracy for a reader."""
    low, high = counted.accuracy_interval or (None, None)
    return f"{percent(low)} to {percent(high)}"


def headline(summary: RunSummary) -> str:
    """The benchmark's own number."""
    value = summary.headline_score
    return "–" if value is None else _shown(value, summary)


def _shown(value: float, summary: RunSummary) -> str:
    return f"{value:g}" if summary.points else percent(value)


def in_words(value: object) -> str:
    """A setting's value for a reader."""
    if value is None or value in ((), [], {}, ""):
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def carried(provenance: Provenance, summary: RunSummary) -> list[tuple[str, str]]:
    """What a score has to carry: who was asked what, how, with which tools, and who decided."""
    settings = provenance.settings
    judged = summary.by_judge / summary.evaluated if summary.evaluated else None
    return [
        ("model", settings.model),
        *_how_asked(provenance),
        ("samples", in_words(settings.samples)),
        ("data", f"{settings.data}, md5 {provenance.data_md5 or 'none'}"),
        ("items", f"{summary.items}{'' if settings.limit is None else f', the first {settings.limit}'}"),
        ("scoring profile", summary.profile + (", parity" if summary.parity else "")),
        ("rules of the judge", summary.rules + (f", before {summary.rules_before}" if summary.rules_before else "")),
        ("judge", f"{summary.judge}, decided {percent(judged)}, {summary.judge_tokens:,} tokens"),
        ("judge prompts", ", ".join(f"{k} {v[:12]}" for k, v in summary.judge_prompts.items()) or "none used"),
        ("episodes not evaluated", str(summary.not_evaluated)),
        ("no answer could be read, counted wrong", str(summary.unparsed)),
        ("date", provenance.started),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
    ]


def _how_asked(provenance: Provenance) -> Iterator[tuple[str, str]]:
    settings = provenance.settings
    if settings.imported:
        yield "answers", imported_from(provenance)
        return
    yield "mode", settings.mode
    for name, value in settings.agent.model_dump(mode="json", exclude=set(settings.PLACES)).items():
        yield name, in_words(value)
    yield "tools that are on", in_words(settings.agent.tools_on)
    yield "mode of search", settings.search_mode
    yield "prompt_sha256", provenance.prompt_sha256[:12]
    for name in ("temperature", "top_p", "seed"):
        yield name, in_words(getattr(settings, name))


def imported_from(provenance: Provenance) -> str:
    """Where answers that nobody asked for here come from."""
    md5 = provenance.predictions_md5 or "not kept"
    return f"imported from {provenance.settings.predictions} (md5 {md5}); how the model was asked is not known"


def write_run_report(directory: Path, path: Path, *, against: Path | None = None, episodes: int = _EPISODES) -> None:
    """Write the page of a scored run, and `report.md`, `scores.csv` and `report.json` beside it.

    Args:
        directory: The run.
        path: Of the page.
        against: Another run over the same items, such as the same model without tools.
        episodes: How many can be opened in the page.

    Raises:
        RunMismatch: A run was not scored, or the two cannot be compared.
    """
    provenance, summary, rows = read_provenance(directory), read_summary(directory), read_scores(directory)
    found, settings = analyse(rows), provenance.settings
    comparison = None if against is None else compare_runs(directory, against)
    names, model = list(summary.scores), short_names([settings.model])[settings.model]
    title = load_benchmark(settings.benchmark).title
    page = render(
        Path(__file__).with_suffix(".html"),
        title=f"{title}: {model}",
        benchmark=title,
        model=model,
        way=f"answers imported from {settings.predictions}" if settings.imported else f"mode {settings.mode}",
        summary=summary,
        headline=headline(summary),
        notes=notes_of(provenance, summary),
        scores=_scores(summary),
        strong=names.index(summary.headline) if summary.headline in names else None,
        published=_published(summary),
        warnings=warnings_for(summary.benchmark),
        carried=carried(provenance, summary),
        beside=None if comparison is None or against is None else _beside(comparison, against, path),
        tool_use=None if settings.imported or found is None else _tool_use(found, summary),
        imported=settings.imported,
        run=directory,
        categories=_categories(summary, rows),
        percent=percent,
        **listed_episodes(directory, rows, most=episodes),
        script=Markup(_script(directory)),  # noqa: S704 - our own
    )
    write_whole(path, page)
    write_whole(path.with_suffix(".md"), markdown(provenance, summary, None if settings.imported else found, comparison))
    write_whole(directory / "scores.csv", scores_csv(rows))
    described = {
        "run": provenance_json(provenance),
        "summary": summary_json(summary),
        "analytics": None if found is None else asdict(found),
        "comparison": None if comparison is None else asdict(comparison),
    }
    write_whole(path.with_suffix(".json"), json.dumps(described, indent=1))


def _script(directory: Path) -> str:
    told = json.dumps({"run": str(directory), "viewer": VIEWER}).replace("</", "<\\/")
    return f"Object.assign(document.body.dataset, {told});\n{Path(__file__).with_suffix('.js').read_text(encoding='utf-8')}"


def notes_of(provenance: Provenance, summary: RunSummary) -> list[str]:
    """What a reader must know before the numbers."""
    settings = provenance.settings
    benchmark = load_benchmark(settings.benchmark)
    notes = [note for note in (shortfall(summary), summary.note) if note]
    if settings.imported:
        notes.append(f"answers: {imported_from(provenance)}")
    left_out = [name for name in benchmark.tools if name not in settings.tools]
    if settings.way == "agent" and left_out:
        notes.append(f"this benchmark is meant to be asked with {', '.join(left_out)}, which had no source here")
    if summary.items < benchmark.num_items:
        notes.append(
            f"{summary.items} of {benchmark.num_items:,} items: this score is not comparable with any of the whole benchmark"
        )
    if summary.not_evaluated:
        said = ", ".join(f"{name} {count}" for name, count in not_evaluated(summary).items())
        notes.append(
            f"{summary.not_evaluated} of {summary.episodes} episodes were not evaluated and are in no number below ({said})"
        )
    becomes = "scored 0" if settings.repeated_outage == "wrong" else "not evaluated"
    for name, why in list(summary.repeated_outages.items())[:_NAMED]:
        notes.append(f"item {name} is {becomes}: {why}")
    if (more := len(summary.repeated_outages) - _NAMED) > 0:
        notes.append(f"{more} more items are {becomes}, because an outage ends them every time: summary.json names them")
    if summary.unreadable_lines:
        notes.append(
            f"{summary.unreadable_lines} lines of episodes.jsonl cannot be read and were left out; scoring says which. The "
            "command that made the run asks their questions again"
        )
    return notes + [f"{count} x {reason}" for reason, count in summary.failures.items()]


def _scores(summary: RunSummary) -> list[tuple[str, str]]:
    rows = [(name, _shown(value, summary)) for name, value in summary.scores.items()]
    rows += [(name, percent(value)) for name, value in summary.at_k.items()]
    return [*rows, ("mean over all items, 95 % interval", f"{percent(summary.accuracy)}, {interval(summary)}")]


def _categories(summary: RunSummary, rows: Sequence[ScoreRow]) -> list[tuple[str, Totals, str, Mapping[str, int]]]:
    """(name, totals, interval, episodes by what became of them), the sum of all last."""
    results = {name: Counter(result_of(row) for row in rows if row.category == name) for name in summary.categories}
    each = [(name, counted, interval(counted), results[name]) for name, counted in summary.categories.items()]
    return [*each, ("all (micro)", summary, interval(summary), Counter(result_of(row) for row in rows))]


def _published(summary: RunSummary) -> list[tuple[str, str]]:
    unit = "" if summary.points else "\u00a0%"
    others = published(summary.benchmark)
    rows = [(f"{other.model} ({other.tools}; {other.where})", f"{other.score:g}{unit}") for other in others]
    return [("this run", headline(summary)), *rows] if rows else []


def _beside(found: Comparison, against: Path, page: Path) -> dict[str, object]:
    """The comparison with another run, and what leads to its items in both reports."""
    low, high = found.difference_interval
    difference = found.first_accuracy - found.second_accuracy
    other = read_provenance(against).settings
    return {
        "name": f"{short_names([other.model])[other.model]} · {other.way}",
        "folder": against,
        "report": link_to(against / "report.html", page),
        "warnings": found.warnings,
        "facts": [
            ("items evaluated in both", found.items),
            ("accuracy, this run and the other", f"{percent(found.first_accuracy)}, {percent(found.second_accuracy)}"),
            ("difference, 95 % bootstrap interval", f"{percent(difference)}, {percent(low)} to {percent(high)}"),
            ("p", f"{found.p_value:.3g} ({found.test})"),
            ("gain: right here, wrong there", percent(found.gain)),
            ("harm: wrong here, right there", percent(found.harm)),
            ("net", percent(found.net)),
            ("right here by an episode with tools", found.solved_with_tools),
            ("of those also right there", percent(found.also_without)),
            *((name, percent(value)) for name, value in found.adaptiveness.items()),
        ],
        "categories": [
            [name or "(none)", str(items), percent(here), percent(there)]
            for name, (items, here, there) in found.by_category.items()
        ],
        "paired": [
            (said, items[:_PAIRED], len(items) - _PAIRED)
            for said, items in (("Right here, wrong there", found.gained), ("Wrong here, right there", found.harmed))
        ],
    }


def _tool_use(found: ToolUse, summary: RunSummary) -> dict[str, object]:
    tokens, wall = found.reply_tokens, found.wall_s
    charts: dict[str, Mapping[str, int]] = {
        "Kinds of calls": {name: count for name, count in found.mix.items() if count},
        "Calls an episode": {str(calls): count for calls, count in found.calls_histogram.items()},
        "Errors that the model was told of": {**found.code.errors, **found.refused_calls},
        "How episodes ended": summary.stop_reasons,
        "Who decided": summary.decided_by,
        "Format violations": found.violations,
    }
    alone = {title.lower(): one for title, one in charts.items() if len(one) == 1}
    return {
        "facts": [
            ("episodes with a call", percent(found.tool_rate)),
            ("calls an episode, mean and sd", f"{found.calls_mean:.2f}, {found.calls_sd:.2f}"),
            ("episodes with a search", percent(found.search_rate)),
            ("tokens written, mean, median, 90 %", f"{tokens.mean:.0f}, {tokens.median:.0f}, {tokens.p90:.0f}"),
            ("seconds an episode, mean, median, 90 %", f"{wall.mean:.1f}, {wall.median:.1f}, {wall.p90:.1f}"),
            ("of them the model's, the tools'", f"{found.model_s_mean:.1f}, {found.tool_s_mean:.1f}"),
            ("attempts that an outage of ours ended", summary.outages),
            ("cells that ran without an error", f"{percent(found.code.succeeded)} of {found.code.calls}"),
            ("cells that do nothing", found.code.placeholders),
            ("calls made twice in an episode", found.repeated_calls),
            ("replies cut by their limit", found.cut_replies),
            ("episodes whose format is right", percent(found.well_formed)),
            *((title, f"{name}: {count}") for title, one in alone.items() for name, count in one.items()),
        ],
        "charts": [(title, bar_chart(values)) for title, values in charts.items() if len(values) > 1],
        # Where all are of one kind, its accuracy is that of all.
        "splits": [
            [f"{section}: {name}", str(part.items), percent(part.accuracy), interval(part)]
            for section in _SECTIONS
            if len(found.accuracy_by[section]) > 1
            for name, part in found.accuracy_by[section].items()
        ],
    }


def markdown(provenance: Provenance, summary: RunSummary, found: ToolUse | None, comparison: Comparison | None) -> str:
    """The report's numbers as text."""
    lines = [f"# {summary.benchmark}: {headline(summary)}", ""]
    lines += [line for note in notes_of(provenance, summary) for line in (f"> {' '.join(note.split())}", "")]
    for name, value in summary.scores.items():
        mark = "**" if name == summary.headline else ""
        lines.append(f"{mark}{name}: {_shown(value, summary)}{mark}  ")
    lines += ["", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in carried(provenance, summary)), ""]
    others = published(summary.benchmark)
    if others:
        lines += [
            "| published | score |",
            "| --- | --: |",
            *(f"| {o.model} ({o.tools}; {o.where}) | {o.score:g} |" for o in others),
        ]
        lines += ["", *warnings_for(summary.benchmark), ""]
    if found is not None:
        lines += [
            f"Tool rate {percent(found.tool_rate)}, {found.calls_mean:.2f} calls an episode; "
            f"{percent(found.code.succeeded)} of {found.code.calls} cells ran without an error.",
            "",
        ]
    if comparison is not None:
        lines += [
            f"Beside the other run: gain {percent(comparison.gain)}, harm {percent(comparison.harm)}, net "
            f"{percent(comparison.net)}, p {comparison.p_value:.3g} ({comparison.test}).",
            *comparison.warnings,
            "",
        ]
    return "\n".join(lines)


_COLUMNS = (
    "item_id", "sample", "category", "gold", "prediction", "extracted", "correct", "score", "decided_by", "reason",
    "stop_reason", "tool_calls", "tool_errors", "turns", "reply_tokens", "wall_s",
)  # fmt: skip


_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?%?")


def scores_csv(rows: Sequence[ScoreRow]) -> str:
    """One line an episode, for a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_as_text(getattr(row, name)) for name in _COLUMNS] for row in rows)
    return buffer.getvalue()


def _as_text(value: Any) -> Any:
    """A cell that a spreadsheet takes for no formula: what a model wrote may begin as one, and would be worked out."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"
