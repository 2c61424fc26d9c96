"""Many runs in one table: benchmarks down, models across, and beside each number what makes it incomparable.

    deepeyes leaderboard RUN… [--out FOLDER]

A folder of runs may stand for its runs.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.files import write_whole
from code_sandbox.command_line import CommandParser, add_json_option, print_json, program
from evaluation.benchmarks import load_benchmark
from evaluation.reports.names import short_names
from evaluation.reports.published import published, warnings_for
from evaluation.reports.run_page import carried, headline, interval, percent
from evaluation.runs.files import RunMismatch
from evaluation.runs.provenance import read_provenance
from evaluation.runs.summary import read_summary
from viewer.templates import link_to, render


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One scored run."""

    directory: str
    benchmark: str
    label: str
    """Model and mode, or `imported`; of a model's folder as much as tells it from the others."""
    score: str
    interval: str
    tool_rate: str
    """Share of its episodes that called a tool; over the checkpoints of a training it shows whether tools stay in use."""
    marks: tuple[str, ...]
    """Why the number does not stand for the whole benchmark, or not beside others."""
    carries: Mapping[str, str]
    """Profile, judge, prompt and the rest, for a reader."""
    compared: Mapping[str, object]
    """Settings, data and scoring, which runs must have in common to be compared."""


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The scored runs among folders and in them.

    Raises:
        RunMismatch: There is none.
    """
    found: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("**/summary.json"))
        found += [path for path in inside if (path / "run.json").exists()]
    if not found:
        raise RunMismatch(f"no scored run in {', '.join(map(str, folders))}; a run's folder has run.json and summary.json")
    return list(dict.fromkeys(found))


def read_entry(directory: Path) -> LeaderboardRow:
    """One run."""
    provenance, summary = read_provenance(directory), read_summary(directory)
    settings = provenance.settings
    benchmark = load_benchmark(settings.benchmark)
    marks = []
    if settings.limit is not None or summary.items < benchmark.num_items:
        marks.append(f"{summary.items} of {benchmark.num_items:,} items")
    if summary.not_evaluated:
        marks.append(f"{summary.not_evaluated} not evaluated")
    if summary.unreadable_lines:
        marks.append(f"{summary.unreadable_lines} unreadable records left out")
    if benchmark.needs_judge and summary.judge == "none":
        marks.append("needs a judge, had none")
    if benchmark.note:
        marks.append(benchmark.note)
    scoring = {name: getattr(summary, name) for name in ("profile", "parity", "judge", "rules")}
    return LeaderboardRow(
        directory=str(directory),
        benchmark=settings.benchmark,
        label=f"{settings.model} · {settings.way}",
        score=headline(summary),
        interval=interval(summary),
        tool_rate=percent(summary.tool_rate),
        marks=tuple(marks),
        carries=dict(carried(provenance, summary)),
        compared={**settings.compared, "data_md5": provenance.data_md5, **scoring},
    )


def read_entries(folders: Sequence[Path]) -> list[LeaderboardRow]:
    """All scored runs among folders and in them.

    Raises:
        RunMismatch: There is none.
    """
    entries = [read_entry(path) for path in find_runs(folders)]
    short = short_names(entry.carries["model"] for entry in entries)
    return [replace(entry, label=entry.label.replace(model := entry.carries["model"], short[model], 1)) for entry in entries]


def conflicts(entries: Sequence[LeaderboardRow]) -> list[str]:
    """What differs between runs of one benchmark and keeps them from being compared."""
    notes = []
    by_benchmark: dict[str, list[LeaderboardRow]] = defaultdict(list)
    for entry in entries:
        by_benchmark[entry.benchmark].append(entry)
    for name, members in sorted(by_benchmark.items()):
        for key in dict.fromkeys(key for entry in members for key in entry.compared):
            # Of imported answers nobody knows how they were asked for.
            known = [entry.compared[key] for entry in members if key in entry.compared]
            values = sorted({json.dumps(value, sort_keys=True) for value in known})
            if len(values) > 1:
                notes.append(f"{name}: {key} differs: {'; '.join(values)}")
    return notes


def write_leaderboard(folders: Sequence[Path], out: Path) -> list[LeaderboardRow]:
    """Write `leaderboard.html`, `.md` and `.json`.

    Raises:
        RunMismatch: There is no scored run.
    """
    entries = read_entries(folders)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "leaderboard.html", _page(entries, out / "leaderboard.html"))
    write_whole(out / "leaderboard.md", markdown(entries))
    write_whole(out / "leaderboard.json", json.dumps(_described(entries), indent=1, ensure_ascii=False))
    return entries


def _described(entries: Sequence[LeaderboardRow]) -> dict[str, object]:
    return {"entries": [asdict(entry) for entry in entries], "conflicts": conflicts(entries)}


def _grid(entries: Sequence[LeaderboardRow]) -> tuple[list[str], list[list[str]]]:
    """Benchmarks down, models across."""
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in entries:
        cells[entry.benchmark, entry.label].append(f"{entry.score}{' *' if entry.marks else ''}")
    labels = list(dict.fromkeys(entry.label for entry in entries))
    names = sorted({entry.benchmark for entry in entries})
    rows = [[load_benchmark(name).title, *(" / ".join(cells[name, label]) or "–" for label in labels)] for name in names]
    return ["", *labels], rows


def markdown(entries: Sequence[LeaderboardRow]) -> str:
    """The table as text; `*` marks a number that something must be said of."""
    header, rows = _grid(entries)
    lines = [f"| {' | '.join(header)} |", f"| --- |{' --: |' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"\\* {entry.label}, {entry.benchmark}: {'; '.join(entry.marks)}" for entry in entries if entry.marks)]
    return "\n".join([*lines, *conflicts(entries)]) + "\n"


def _page(entries: Sequence[LeaderboardRow], path: Path) -> str:
    names = sorted({entry.benchmark for entry in entries})
    labels = list(dict.fromkeys(entry.label for entry in entries))
    others = {name: {other.model: other for other in published(name)} for name in names}
    cells: dict[tuple[str, str], list[LeaderboardRow]] = defaultdict(list)
    for entry in entries:
        cells[entry.benchmark, entry.label].append(entry)
    return render(
        Path(__file__).with_suffix(".html"),
        title="Leaderboard",
        runs=len(entries),
        conflicts=conflicts(entries),
        names=names,
        titles={name: load_benchmark(name).title for name in names},
        labels=labels,
        cells=cells,
        models=list(dict.fromkeys(model for name in names for model in others[name])),
        others=others,
        details={name: _details([entry for entry in entries if entry.benchmark == name]) for name in names},
        warnings={name: warnings_for(name) if others[name] else [] for name in names},
        links={entry.directory: link_to(Path(entry.directory) / "report.html", path) for entry in entries},
    )


def _details(members: Sequence[LeaderboardRow]) -> dict[str, object]:
    """The runs of one benchmark, and what each number carries."""
    names = dict.fromkeys(key for entry in members for key in entry.carries)
    return {
        "members": members,
        "labels": [entry.label for entry in members],
        "carried": [[key, *(entry.carries.get(key, "–") for entry in members)] for key in names],
    }


def main(arguments: list[str] | None = None, *, prog: str = "python -m evaluation.reports.leaderboard") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="a scored run, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder for leaderboard.html, .md and .json")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    with program(prog):
        entries = write_leaderboard(options.run, options.out) if options.out is not None else read_entries(options.run)
        if options.json:
            print_json(_described(entries))
        else:
            sys.stdout.write(markdown(entries) if options.out is None else f"{options.out / 'leaderboard.html'}\n")


if __name__ == "__main__":
    main()
