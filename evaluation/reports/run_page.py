"""A run's page: scores with what they mean, tool use, a second run beside it, and the episodes behind every number.

Beside it the same as Markdown, CSV and JSON. All of it is made from run.json, summary.json and scores.jsonl.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.analysis.analytics import analyse
from evaluation.analysis.compare import Comparison, compare_runs
from evaluation.benchmarks import load_benchmark
from evaluation.reports.episodes import behind, browser
from evaluation.reports.published import published, warnings_for
from evaluation.runs.folder import read_json, read_run, read_scores, write_whole
from evaluation.runs.settings import RunSettings
from viewer.static_page import bar_chart, page, table

_EPISODES = 150
_SECTIONS = ("tool use", "first call", "number of calls", "decided by", "format", "code")
Summary = Mapping[str, Any]


def percent(value: float | None) -> str:
    """A share for a reader; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def headline(summary: Summary) -> str:
    """The benchmark's own number."""
    value = summary["headline_score"]
    if value is None:
        return "–"
    return f"{value:g}" if summary["points"] else percent(value)


def provenance(run: Summary, summary: Summary) -> list[tuple[str, str]]:
    """What a score has to carry: who was asked what, how, with which tools, and who decided."""
    settings = RunSettings(**{name: run[name] for name in RunSettings.model_fields if name in run})
    evaluated = summary["evaluated"]
    judged = summary["by_judge"] / evaluated if evaluated else None
    return [
        ("model", settings.model),
        ("mode", settings.mode),
        ("tools", ", ".join(settings.tools_on) or "none"),
        ("search", settings.search_mode),
        ("prompt", f"{settings.prompt if settings.tools_on else settings.mode}, sha256 {str(run['prompt_sha256'])[:12]}"),
        ("temperature, samples, seed", f"{settings.temperature:g}, {settings.samples}, {settings.seed}"),
        ("turns, tokens a reply", f"{settings.max_turns}, {settings.max_reply_tokens}"),
        ("pixel limit of the question's images", str(settings.image_max_pixels or "none here; the server may have one")),
        ("data", f"{settings.data}, md5 {run.get('data_md5') or 'none'}"),
        ("items", f"{summary['items']}{'' if settings.limit is None else f', the first {settings.limit}'}"),
        ("scoring profile", summary["profile"] + (", parity" if summary["parity"] else "")),
        ("judge", f"{summary['judge']}, decided {percent(judged)}, {summary['judge_tokens']:,} tokens"),
        ("judge prompts", ", ".join(f"{k} {v[:12]}" for k, v in summary["judge_prompts"].items()) or "none used"),
        ("not evaluated", str(summary["not_evaluated"])),
        ("no answer could be read, counted wrong", str(summary["unparsed"])),
        ("date", str(run.get("started", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())),
    ]


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
    run, summary, rows = read_run(directory), read_json(directory / "summary.json"), read_scores(directory)
    found = analyse(rows)
    comparison = None if against is None else compare_runs(directory, against)
    body = f"""
<h1>{html.escape(load_benchmark(run["benchmark"]).title)}: {headline(summary)}</h1>
<p class="soft">{html.escape(run["model"])} · mode {html.escape(run["mode"])} · {html.escape(summary["headline"])} under
profile {html.escape(summary["profile"])}</p>
{_notes(run, summary)}
<div class="grid"><section class="card"><h3>Scores</h3>{_scores(summary)}</section>
<section class="card"><h3>What they mean</h3>{table(["", ""], provenance(run, summary))}</section></div>
<section class="card"><h3>By category</h3>{_categories(summary)}</section>
{_published(run["benchmark"], summary)}
{"" if comparison is None or against is None else _comparison(comparison, against)}
{_analytics(found, summary)}
{browser(directory, rows, most=episodes)}
"""
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    script = f"document.body.dataset.run = {json.dumps(str(directory))};\n{script}"
    write_whole(path, page(f"{run['benchmark']}: {run['model']}", body, script=script))
    write_whole(path.with_suffix(".md"), markdown(run, summary, found, comparison))
    write_whole(directory / "scores.csv", scores_csv(rows))
    described: dict[str, Any] = {"run": run, "summary": summary, "analytics": found}
    described["comparison"] = None if comparison is None else asdict(comparison)
    write_whole(path.with_suffix(".json"), json.dumps(described, indent=1))


def _notes(run: Summary, summary: Summary) -> str:
    notes = [summary["note"]] if summary["note"] else []
    settings = RunSettings(**{name: run[name] for name in RunSettings.model_fields if name in run})
    left_out = [name for name in load_benchmark(run["benchmark"]).tools if name not in settings.tools]
    if settings.mode == "agent" and left_out:
        notes.append(f"this benchmark is meant to be asked with {', '.join(left_out)}, which had no source here")
    whole = load_benchmark(run["benchmark"]).num_items * summary["samples"]
    if summary["items"] < whole:
        notes.append(f"{summary['items']} of {whole:,} items: this score is not comparable with any of the whole benchmark")
    if summary["not_evaluated"]:
        why = {
            name: count
            for name, count in summary["decided_by"].items()
            if not name.startswith(("rule:", "judge:", "random"))
        }
        said = ", ".join(f"{name} {count}" for name, count in why.items())
        notes.append(
            f"{summary['not_evaluated']} of {summary['items']} were not evaluated and are in no number below ({said})"
        )
    notes += [f"{count} x {reason}" for reason, count in summary["failures"].items()]
    return "".join(f'<p class="warn">{html.escape(note)}</p>' for note in notes)


def _scores(summary: Summary) -> str:
    def shown(value: float) -> str:
        return f"{value:g}" if summary["points"] else percent(value)

    rows = [[name, shown(value)] for name, value in summary["scores"].items()]
    rows += [[name, percent(value)] for name, value in summary["at_k"].items() if name != "items"]
    low, high = summary["accuracy_interval"] or (None, None)
    rows.append(["mean over all items, 95 % interval", f"{percent(summary['accuracy'])}, {percent(low)} to {percent(high)}"])
    names = list(summary["scores"])
    return table(["", ""], rows, strong=names.index(summary["headline"]) if summary["headline"] in names else None)


def accuracy_row(name: str, totals: Summary) -> list[str]:
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


def _categories(summary: Summary) -> str:
    header = ["", "items", "accuracy", "95 % interval", "tool used", "tool errors", "not evaluated"]
    rows = []
    for name, totals in summary["categories"].items():
        row = [html.escape(cell) for cell in accuracy_row(name or "(none)", totals)]
        row[0] = behind(name or "(none)", category=name)
        row[2] = behind(percent(totals["accuracy"]), category=name, result="right")
        row[6] = behind(str(totals["not_evaluated"]), category=name, result="not evaluated")
        rows.append(row)
    rows.append([html.escape(cell) for cell in accuracy_row("all (micro)", summary)])
    return table(header, rows, strong=len(rows) - 1, markup=True)


def _published(benchmark: str, summary: Summary) -> str:
    others = published(benchmark)
    if not others:
        return ""
    unit = "" if summary["points"] else "\u00a0%"
    rows = [[f"{other.model} ({other.tools}; {other.where})", f"{other.score:g}{unit}"] for other in others]
    rows.insert(0, ["this run", headline(summary)])
    notes = "".join(f'<p class="warn">{html.escape(note)}</p>' for note in warnings_for(benchmark))
    return f'<section class="card"><h3>Published numbers</h3>{table(["", "score"], rows, strong=0)}{notes}</section>'


def _comparison(found: Comparison, against: Path) -> str:
    low, high = found.difference_interval
    difference = found.first_accuracy - found.second_accuracy
    rows = [
        ["items evaluated in both", str(found.items)],
        ["accuracy, this run and the other", f"{percent(found.first_accuracy)}, {percent(found.second_accuracy)}"],
        ["difference, 95 % bootstrap interval", f"{percent(difference)}, {percent(low)} to {percent(high)}"],
        ["p", f"{found.p_value:.3g} ({found.test})"],
        ["gain: right here, wrong there", percent(found.gain)],
        ["harm: wrong here, right there", percent(found.harm)],
        ["net", percent(found.net)],
        ["right here by an episode with tools", str(found.solved_with_tools)],
        ["of those also right there", percent(found.also_without)],
        *([name, percent(value)] for name, value in found.adaptiveness.items()),
    ]
    per = [[name or "(none)", str(n), percent(a), percent(b)] for name, (n, a, b) in found.by_category.items()]
    notes = "".join(f'<p class="warn">{html.escape(note)}</p>' for note in found.warnings)
    return (
        f'<section class="card"><h3>Beside {html.escape(str(against))}</h3>{notes}'
        f'<div class="grid"><div>{table(["", ""], rows)}</div>'
        f"<div>{table(['category', 'items', 'this run', 'the other'], per)}</div></div></section>"
    )


def _analytics(found: Mapping[str, Any], summary: Summary) -> str:
    if not found:
        return '<section class="card"><h3>Tool use</h3><p class="soft">Nothing was evaluated.</p></section>'
    code, tokens, wall = found["code"], found["reply_tokens"], found["wall_s"]
    facts = [
        ["episodes with a call", percent(found["tool_rate"])],
        ["calls an episode, mean and sd", f"{found['calls_mean']:.2f}, {found['calls_sd']:.2f}"],
        ["episodes with a search", percent(found["search_rate"])],
        ["tokens written, mean, median, 90 %", f"{tokens['mean']:.0f}, {tokens['median']:.0f}, {tokens['p90']:.0f}"],
        ["seconds an episode, mean, median, 90 %", f"{wall['mean']:.1f}, {wall['median']:.1f}, {wall['p90']:.1f}"],
        ["of them the model's, the tools'", f"{found['model_s_mean']:.1f}, {found['tool_s_mean']:.1f}"],
        ["cells that ran without an error", f"{percent(code['succeeded'])} of {code['calls']}"],
        ["cells that do nothing", str(code["placeholders"])],
        ["calls made twice in an episode", str(found["repeated_calls"])],
        ["replies cut by their limit", str(found["cut_replies"])],
        ["episodes whose format is right", percent(found["format"]["well_formed"])],
    ]
    errors = {**code["errors"], **found["refused_calls"]}
    charts = [
        ("Kinds of calls", bar_chart({name: float(count) for name, count in found["mix"].items() if count})),
        ("Calls an episode", bar_chart({name: float(count) for name, count in found["calls_histogram"].items()})),
        ("Errors that the model was told of", bar_chart({name: float(count) for name, count in errors.items()})),
        ("How episodes ended", bar_chart({name: float(count) for name, count in summary["stop_reasons"].items()})),
        ("Who decided", bar_chart({name: float(count) for name, count in summary["decided_by"].items()})),
        ("Format violations", bar_chart({name: float(count) for name, count in found["format"]["violations"].items()})),
    ]
    cards = [f'<section class="card"><h3>Tool use</h3>{table(["", ""], facts)}</section>']
    cards += [f'<section class="card"><h3>{title}</h3>{chart}</section>' for title, chart in charts]
    cards += [
        f'<section class="card"><h3>Accuracy by {name}</h3>{_split(found["accuracy_by"][name])}</section>'
        for name in _SECTIONS
    ]
    return f'<h2>What the model did</h2><div class="grid">{"".join(cards)}</div>'


def _split(groups: Mapping[str, Summary]) -> str:
    rows = []
    for name, found in groups.items():
        low, high = found["accuracy_interval"] or (None, None)
        rows.append([name, str(found["items"]), percent(found["accuracy"]), f"{percent(low)} to {percent(high)}"])
    return table(["", "items", "accuracy", "95 % interval"], rows)


def markdown(run: Summary, summary: Summary, found: Mapping[str, Any], comparison: Comparison | None) -> str:
    """The report's numbers as text."""
    lines = [f"# {run['benchmark']}: {headline(summary)}", ""]
    lines += [
        f"{'**' if name == summary['headline'] else ''}{name}: "
        + (f"{value:g}" if summary["points"] else percent(value))
        + ("**" if name == summary["headline"] else "")
        + "  "
        for name, value in summary["scores"].items()
    ]
    lines += ["", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in provenance(run, summary)), ""]
    others = published(run["benchmark"])
    if others:
        lines += [
            "| published | score |",
            "| --- | --: |",
            *(f"| {o.model} ({o.tools}; {o.where}) | {o.score:g} |" for o in others),
        ]
        lines += ["", *warnings_for(run["benchmark"]), ""]
    if found:
        lines += [
            f"Tool rate {percent(found['tool_rate'])}, {found['calls_mean']:.2f} calls an episode; "
            f"{percent(found['code']['succeeded'])} of {found['code']['calls']} cells ran without an error.",
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


def scores_csv(rows: Sequence[Summary]) -> str:
    """One line an episode, for a spreadsheet."""
    columns = (
        "item_id", "sample", "category", "gold", "prediction", "extracted", "correct", "score", "decided_by", "stop_reason",
        "tool_calls", "tool_errors", "turns", "reply_tokens", "wall_s",
    )  # fmt: skip
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
