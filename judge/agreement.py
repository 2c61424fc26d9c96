"""Do two judges agree, or a judge and people? Agreement, Cohen's kappa, which way verdicts flip, by category.

    python -m judge.agreement pairs.jsonl --base-url http://a:18901/v1 [--other http://b:18901/v1 | --labels]

`pairs.jsonl` has a line for each answer: `question`, `gold`, `answer`, perhaps `kind`, and with `--labels` `right`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judge.client import Judge, JudgeSettings
from judge.verdict import Outcome, Verdict
from serving.urls import split_urls


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two lists of verdicts. What either left undecided is counted apart."""

    compared: int
    undecided: int
    agreement: float | None
    """Share of equal verdicts; None if nothing could be compared."""
    kappa: float | None
    """Cohen's kappa: 1 is full agreement, 0 what chance would give; None if both always say the same one thing."""
    flips: Mapping[str, int] = field(default_factory=dict)
    """`correct -> incorrect` and the other way."""


def compare(first: Sequence[bool | None], second: Sequence[bool | None]) -> Agreement:
    """Compare verdicts item by item.

    Args:
        first: True is correct, None undecided.
        second: Of the same length.

    Raises:
        ValueError: The lengths differ.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    undecided = len(first) - len(pairs)
    if not pairs:
        return Agreement(0, undecided, None, None)
    n = len(pairs)
    equal = sum(a == b for a, b in pairs) / n
    yes_first, yes_second = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    kappa = None if chance == 1 else (equal - chance) / (1 - chance)
    flips = Counter("correct -> incorrect" if a else "incorrect -> correct" for a, b in pairs if a != b)
    return Agreement(n, undecided, equal, kappa, dict(flips))


def by_category(kinds: Sequence[str], first: Sequence[bool | None], second: Sequence[bool | None]) -> dict[str, Agreement]:
    """`compare` for each kind, and for all under `all`."""
    rows: dict[str, list[tuple[bool | None, bool | None]]] = defaultdict(list)
    for kind, a, b in zip(kinds, first, second, strict=True):
        rows[kind].append((a, b))
        rows["all"].append((a, b))
    return {kind: compare([a for a, _ in pairs], [b for _, b in pairs]) for kind, pairs in sorted(rows.items())}


def read_pairs(path: Path, *, labels: bool) -> list[dict[str, Any]]:
    """Read and check the file.

    Raises:
        ValueError: A line lacks something; names the line.
    """
    wanted = ["question", "gold", "answer"] + (["right"] if labels else [])
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), start=1):
        try:
            pair = json.loads(line)
            missing = [name for name in wanted if name not in pair]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no JSON object: {error}") from error
        if missing:
            raise ValueError(f"{path}:{number} lacks {', '.join(missing)}; expected {', '.join(wanted)}")
        pairs.append(pair)
    return pairs


async def ask_all(settings: JudgeSettings, pairs: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts in the order of the pairs."""
    judge = Judge(settings)
    try:
        asked = (judge.judge(pair["answer"], pair["gold"], question=pair["question"]) for pair in pairs)
        return list(await asyncio.gather(*asked))
    finally:
        await judge.aclose()


def _row(name: str, found: Agreement) -> str:
    agreement = "-" if found.agreement is None else f"{found.agreement:.3f}"
    kappa = "-" if found.kappa is None else f"{found.kappa:.3f}"
    flips = ", ".join(f"{way}: {count}" for way, count in sorted(found.flips.items())) or "none"
    return f"| {name} | {found.compared} | {found.undecided} | {agreement} | {kappa} | {flips} |\n"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="judge.agreement", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--base-url", default="", help="of the judge; none is rules alone")
    parser.add_argument("--model", default="judge")
    parser.add_argument("--prompt", default="consistency")
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("--other", help="base URL of another judge")
    against.add_argument("--labels", action="store_true", help="the file's `right`")
    parser.add_argument("--other-model", default="judge")
    options = parser.parse_args(arguments)
    pairs = read_pairs(options.pairs, labels=options.labels)
    urls = split_urls(options.base_url)
    verdicts = asyncio.run(ask_all(JudgeSettings(base_urls=urls, model=options.model, prompt=options.prompt), pairs))
    if options.labels:
        second: list[bool | None] = [bool(pair["right"]) for pair in pairs]
    else:
        other = JudgeSettings(base_urls=split_urls(options.other), model=options.other_model, prompt=options.prompt)
        second = [verdict.correct for verdict in asyncio.run(ask_all(other, pairs))]
    kinds = [str(pair.get("kind", "all answers")) for pair in pairs]
    found = by_category(kinds, [verdict.correct for verdict in verdicts], second)
    sys.stdout.write("| kind | compared | undecided | agreement | kappa | flips |\n| --- | --: | --: | --: | --: | --- |\n")
    sys.stdout.writelines(_row(name, agreement) for name, agreement in found.items())
    decided = Counter(
        verdict.decided_by.partition(":")[0] for verdict in verdicts if verdict.outcome is not Outcome.UNDECIDED
    )
    tokens = sum(verdict.num_tokens for verdict in verdicts)
    sys.stdout.write(f"decided by rules {decided['rule']}, by the judge {decided['judge']}; {tokens:,} tokens\n")


if __name__ == "__main__":
    main()
