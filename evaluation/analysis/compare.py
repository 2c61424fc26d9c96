"""Two runs over the same items: what tools are worth, and whether a difference is more than chance.

Terms: *gain*, items that the first run has right and the second wrong; *harm*, the other way; both as shares of the items
that both runs evaluated. With the first run's tools on and the second's off these are Tool-Gain and Tool-Harm (arXiv
2607.28595; the share of tool-solved items that are solved without is that of arXiv 2606.02357).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from code_sandbox.command_line import CommandParser, add_json_option, print_json, program
from evaluation.runs.files import RunMismatch
from evaluation.runs.provenance import Provenance, read_provenance
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.summary import RunSummary, read_summary
from evaluation.statistics import bootstrap_interval, mcnemar, permutation_test

_EASY_FRAC, _HARD_FRAC = 0.8, 0.2
_SAMPLES_FOR_ADAPTIVENESS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What a first run and a second have in common and not."""

    items: int
    """That both runs evaluated; everything below is over these."""
    only_first: int
    """Items that only the first run has, or only it evaluated."""
    only_second: int
    first_accuracy: float
    second_accuracy: float
    difference_interval: tuple[float, float]
    """95 % bootstrap interval of first minus second, over items."""
    p_value: float
    test: str
    """`McNemar, exact` or, with partial credit or several samples, `permutation`."""
    gain: float
    harm: float
    gained: tuple[str, ...]
    """The items of the gain."""
    harmed: tuple[str, ...]
    solved_with_tools: int
    """Items right in the first run by an episode that called a tool."""
    also_without: float | None
    """Share of those that the second run has right too."""
    by_category: Mapping[str, tuple[int, float, float]]
    """Category -> (items, first accuracy, second accuracy)."""
    adaptiveness: Mapping[str, float]
    """Of the first run's tool use, if the second has five samples or more without tools: `MA_tool` is the share of hard
    items (at most a fifth of the samples right) on which it calls a tool, `MA_text` the share of easy ones (four fifths)
    on which it does not; a model that always or never calls gets 0.5 on average."""
    warnings: tuple[str, ...] = ()

    @property
    def net(self) -> float:
        """Gain minus harm."""
        return self.gain - self.harm


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two scored runs of one benchmark.

    Raises:
        RunMismatch: A run was not scored, they are of different benchmarks, or share no item.
    """
    a, b = read_provenance(first), read_provenance(second)
    if a.settings.benchmark != b.settings.benchmark:
        raise RunMismatch(
            f"{first} is a run of {a.settings.benchmark}, {second} of {b.settings.benchmark}; compare one benchmark"
        )
    warnings = [*_asked_otherwise(a, b), *_scored_otherwise(read_summary(first), read_summary(second))]
    return compare(read_scores(first), read_scores(second), names=(str(first), str(second)), warnings=warnings)


def _asked_otherwise(a: Provenance, b: Provenance) -> Iterator[str]:
    if a.data_md5 != b.data_md5:
        yield "the runs read different files"
    then, now = a.settings.compared, b.settings.compared
    for name, value in then.items():
        if name in now and value != now[name]:  # of imported answers nobody knows how they were asked for
            yield f"{name}: {json.dumps(value)} against {json.dumps(now[name])}; the runs were not asked alike"
    if a.settings.way == b.settings.way and a.prompt_sha256 != b.prompt_sha256:
        yield "prompt_sha256: the runs were asked with another wording"


def _scored_otherwise(a: RunSummary, b: RunSummary) -> Iterator[str]:
    for name in ("profile", "judge", "parity", "rules"):
        if (x := getattr(a, name)) != (y := getattr(b, name)):
            yield f"{name}: {x} against {y}; score both alike"


def compare(
    first: Sequence[ScoreRow],
    second: Sequence[ScoreRow],
    *,
    names: tuple[str, str] = ("first", "second"),
    warnings: Sequence[str] = (),
) -> Comparison:
    """Compare rows of two runs, item by item; several samples of an item count as their mean.

    Raises:
        RunMismatch: No item was evaluated in both.
    """
    a, b = _by_item(first), _by_item(second)
    shared = [item for item in a if item in b]
    if not shared:
        raise RunMismatch(f"{names[0]} and {names[1]} have no evaluated item in common; are they of the same file?")
    x, y = [_mean(a[item]) for item in shared], [_mean(b[item]) for item in shared]
    whole = all(value in (0.0, 1.0) for value in (*x, *y))
    gained = tuple(item for item, i, j in zip(shared, x, y, strict=True) if i > j)
    harmed = tuple(item for item, i, j in zip(shared, x, y, strict=True) if i < j)
    low, high = bootstrap_interval([i - j for i, j in zip(x, y, strict=True)])
    notes = list(warnings)
    missing = len(a) - len(shared), len(b) - len(shared)
    if any(missing):
        notes.append(f"{missing[0]} items were evaluated only in {names[0]}, {missing[1]} only in {names[1]}")
    solved = [item for item in shared if any(row.correct and row.calls for row in a[item])]
    return Comparison(
        items=len(shared),
        only_first=missing[0],
        only_second=missing[1],
        first_accuracy=sum(x) / len(x),
        second_accuracy=sum(y) / len(y),
        difference_interval=(low, high),
        p_value=mcnemar(len(gained), len(harmed)) if whole else permutation_test(x, y),
        test="McNemar, exact" if whole else "permutation",
        gain=len(gained) / len(shared),
        harm=len(harmed) / len(shared),
        gained=gained,
        harmed=harmed,
        solved_with_tools=len(solved),
        also_without=sum(_mean(b[item]) > 0.5 for item in solved) / len(solved) if solved else None,
        by_category=_by_category(shared, a, x, y),
        adaptiveness=_adaptiveness(shared, a, b),
        warnings=tuple(notes),
    )


def _by_item(rows: Sequence[ScoreRow]) -> dict[str, list[ScoreRow]]:
    found: dict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.correct is not None:
            found[row.item_id].append(row)
    return dict(found)


def _mean(rows: Sequence[ScoreRow]) -> float:
    return sum(row.score or 0.0 for row in rows) / len(rows)


def _by_category(
    shared: Sequence[str], a: Mapping[str, Sequence[ScoreRow]], x: Sequence[float], y: Sequence[float]
) -> dict[str, tuple[int, float, float]]:
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item, i, j in zip(shared, x, y, strict=True):
        groups[a[item][0].category].append((i, j))
    return {
        name: (len(pairs), sum(i for i, _ in pairs) / len(pairs), sum(j for _, j in pairs) / len(pairs))
        for name, pairs in sorted(groups.items())
    }


def _adaptiveness(
    shared: Sequence[str], a: Mapping[str, Sequence[ScoreRow]], b: Mapping[str, Sequence[ScoreRow]]
) -> dict[str, float]:
    tool_free = [item for item in shared if len(b[item]) >= _SAMPLES_FOR_ADAPTIVENESS]
    if not tool_free or any(row.calls for item in tool_free for row in b[item]):
        return {}
    calls = {item: sum(bool(row.calls) for row in a[item]) / len(a[item]) for item in tool_free}
    hard = [calls[item] for item in tool_free if _mean(b[item]) <= _HARD_FRAC]
    easy = [1 - calls[item] for item in tool_free if _mean(b[item]) >= _EASY_FRAC]
    if not hard or not easy:
        return {}
    on_hard, on_easy = sum(hard) / len(hard), sum(easy) / len(easy)
    return {"MA_tool": on_hard, "MA_text": on_easy, "MA_mean": (on_hard + on_easy) / 2}


def as_text(found: Comparison, names: tuple[str, str]) -> str:
    """The comparison as a terminal shows it."""
    low, high = found.difference_interval
    lines = [
        f"{found.items} items evaluated in both ({found.only_first} only in {names[0]}, {found.only_second} only in "
        f"{names[1]})",
        f"accuracy {found.first_accuracy:.1%} and {found.second_accuracy:.1%}; difference "
        f"{found.first_accuracy - found.second_accuracy:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}",
        f"p {found.p_value:.3g} ({found.test})",
        f"gain {found.gain:.1%}, harm {found.harm:.1%}, net {found.net:+.1%}",
        f"{found.solved_with_tools} items right by an episode with tools"
        + ("" if found.also_without is None else f", {found.also_without:.1%} of them right in {names[1]} too"),
        *(f"{name} {value:.1%}" for name, value in found.adaptiveness.items()),
        *(f"note: {warning}" for warning in found.warnings),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None, *, prog: str = "python -m evaluation.analysis.compare") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("first", type=Path, help="a scored run, such as one with tools")
    parser.add_argument("second", type=Path, help="another over the same items, such as one without")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    with program(prog):
        found = compare_runs(options.first, options.second)
        if options.json:
            print_json(asdict(found) | {"net": found.net})
        else:
            sys.stdout.write(as_text(found, (str(options.first), str(options.second))))


if __name__ == "__main__":
    main()
