"""Does a judge agree with people, or with another judge? Agreement, Cohen's kappa, which way verdicts flip, by category.

    deepeyes judge agreement                                   with the labelled answers of this repository
    deepeyes judge agreement pairs.jsonl                       with labels of your own
    deepeyes judge agreement --other http://b:18901/v1         with another judge; its key is in OTHER_JUDGE_API_KEY

`pairs.jsonl` has a line for each answer: `question`, `gold`, `answer`, perhaps `kind` and `prompt` (of judge/prompts), and
`right` unless another judge is named. The first table is of what counts, rules and then the judge; the second of the judge
alone, asked about every answer. Without a judge only the rules are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from code_sandbox.command_line import CommandParser, program, sign_of_life
from judge.client import Judge, JudgeSettings
from judge.connection import judge_key
from judge.options import add_judge_options, judge_settings
from judge.verdict import Outcome, Verdict
from serving.urls import split_urls

LABELLED = tuple(sorted((Path(__file__).resolve().parent.parent / "tests/unit/judge").glob("*.jsonl")))
"""What holds the rules to people's labels; in a checkout only."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two lists of verdicts agree. What either left undecided is counted apart."""

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
    """Read and check a file. With labels, what people left open (`right` is null) is left out.

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
        if not labels or pair["right"] is not None:
            pairs.append(pair)
    return pairs


async def ask_all(settings: JudgeSettings, pairs: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts in the order of the pairs.

    Raises:
        ConnectionError: A judge is not there, or (WrongServer) is not the one that was asked for.
        JudgeMisconfigured: It refuses every request.
    """
    judge = Judge(settings)
    try:
        await judge.ping()
        asked = (
            judge.judge(pair["answer"], pair["gold"], question=pair["question"], prompt=_prompt(pair, settings))
            for pair in pairs
        )
        return list(await asyncio.gather(*asked))
    finally:
        await judge.aclose()


def _prompt(pair: Mapping[str, Any], settings: JudgeSettings) -> str:
    """That of the pair; mathematics is judged as in `reason` data."""
    return str(pair.get("prompt") or ("equivalence" if pair.get("kind") == "maths" else settings.prompt))


def both_ways(verdicts: Sequence[Verdict]) -> tuple[list[bool | None], list[bool | None]]:
    """(what rules and then the judge say, what the judge alone says) of verdicts that were asked with `log_only`."""
    alone = [_correct(verdict.second_opinion) for verdict in verdicts]
    together = [
        verdict.correct if verdict.correct is not None else said for verdict, said in zip(verdicts, alone, strict=True)
    ]
    return together, alone


def _correct(outcome: Outcome | None) -> bool | None:
    return None if outcome in (None, Outcome.UNDECIDED) else outcome is Outcome.CORRECT


def _table(title: str, kinds: Sequence[str], first: Sequence[bool | None], second: Sequence[bool | None]) -> str:
    rows = [
        f"\n{title}\n\n| kind | compared | undecided | agreement | kappa | flips |\n| --- | --: | --: | --: | --: | --- |\n"
    ]
    for name, found in by_category(kinds, first, second).items():
        agreement = "-" if found.agreement is None else f"{found.agreement:.3f}"
        kappa = "-" if found.kappa is None else f"{found.kappa:.3f}"
        flips = ", ".join(f"{way}: {count}" for way, count in sorted(found.flips.items())) or "none"
        rows.append(f"| {name} | {found.compared} | {found.undecided} | {agreement} | {kappa} | {flips} |\n")
    return "".join(rows)


def main(arguments: list[str] | None = None, *, prog: str = "python -m judge.agreement") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("pairs", type=Path, nargs="?", help="by default the labelled answers of a checkout")
    add_judge_options(parser)
    parser.add_argument(
        "--prompt", default="consistency", help="of judge/prompts (%(default)s); of mathematics `equivalence`"
    )
    against = parser.add_mutually_exclusive_group()
    against.add_argument("--other", metavar="URL", help="of another judge")
    against.add_argument("--labels", action="store_true", help="the file's `right`, which is the default")
    parser.add_argument("--other-model", metavar="NAME", default="judge", help="by which its servers know it")
    options = parser.parse_args(arguments)
    files = LABELLED if options.pairs is None else (options.pairs,)
    if not files:
        parser.error("the labelled answers belong to a checkout, which this is not; name a file of your own")
    with program(prog), sign_of_life("judging"):
        pairs = [pair for path in files for pair in read_pairs(path, labels=options.other is None)]
        _compare(options, pairs)


def _compare(options: argparse.Namespace, pairs: Sequence[Mapping[str, Any]]) -> None:
    settings = judge_settings(options, prompt=options.prompt)
    has_llm = bool(settings.base_urls)
    verdicts = asyncio.run(ask_all(settings.model_copy(update={"log_only": has_llm}), pairs))
    together, alone = both_ways(verdicts)
    labels: list[bool | None] = [bool(pair.get("right")) for pair in pairs]
    other_alone = labels
    if options.other is not None:
        update = {
            "base_urls": split_urls(options.other),
            "model": options.other_model,
            "api_key": judge_key(os.environ.get("OTHER_JUDGE_API_KEY", ""), variable="OTHER_JUDGE_API_KEY"),
            "log_only": True,
        }
        labels, other_alone = both_ways(asyncio.run(ask_all(settings.model_copy(update=update), pairs)))
    kinds = [str(pair.get("kind", "all answers")) for pair in pairs]
    sys.stdout.write(_table("rules, then the judge" if has_llm else "rules", kinds, together, labels))
    if has_llm:
        sys.stdout.write(_table("the judge alone", kinds, alone, other_alone))
    by_rules = sum(verdict.correct is not None for verdict in verdicts)
    by_judge = sum(said is not None for said in together) - by_rules
    tokens = sum(verdict.num_tokens for verdict in verdicts)
    sys.stdout.write(f"\ndecided by rules {by_rules}, by the judge {by_judge}; {tokens:,} tokens\n")


if __name__ == "__main__":
    main()
