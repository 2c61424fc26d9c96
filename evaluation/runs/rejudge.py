"""Would another judge have decided the same? Judges a sample of a scored run again, and compares.

    deepeyes rejudge RUN --judge-base-url http://B:18901/v1 --judge-model other --sample 200

Scores are left as they are. Only answers that a judge decided are drawn: rules do not change their mind.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import asdict
from pathlib import Path

from agent.records import EpisodeKey
from agent.scheduling import for_each
from code_sandbox.command_line import CommandParser, add_json_option, print_json, program, sign_of_life
from evaluation.benchmarks import load_benchmark
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import Latest, prediction_of, read_items
from evaluation.runs.rows import read_scores
from evaluation.runs.summary import read_summary
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import load_profile
from judge.agreement import Agreement, by_category
from judge.client import Judge, JudgeSettings
from judge.options import add_judge_options, judge_settings


async def rejudge(run: Path, settings: JudgeSettings, *, sample: int, seed: int = 0) -> dict[str, Agreement]:
    """Compare the run's verdicts with those of another judge.

    Args:
        run: Scored with a judge.
        settings: Of the other judge; no cache, so that the same judge can be compared with itself.
        sample: Answers at most.
        seed: Of the draw.

    Returns:
        Agreement by category, and over all as `all`.

    Raises:
        RunMismatch: No judge decided anything in this run.
        JudgeMisconfigured: The other judge refuses every request.
    """
    summary = read_summary(run)
    benchmark, items, episodes = load_benchmark(summary.benchmark), read_items(run), Latest(run)
    rows = [row for row in read_scores(run) if row.correct is not None and row.decided_by.startswith("judge:")]
    if not rows:
        raise RunMismatch(f"no judge decided anything in {run}: there is nothing to judge again")
    rows = random.Random(seed).sample(rows, min(sample, len(rows)))  # noqa: S311 - a draw, not a secret
    judge = Judge(settings)
    grader = Grader(load_profile(summary.profile), judge, parity=summary.parity)
    again: dict[EpisodeKey, bool | None] = {}

    async def one(key: EpisodeKey) -> None:
        episode = episodes.get(key)  # None: its line was damaged since it was scored
        if episode is not None:
            again[key] = (await benchmark.grade(items[key.item_id], prediction_of(episode), grader)).correct

    try:
        await for_each([row.key for row in rows], one, max_in_flight=settings.max_in_flight)
    finally:
        await judge.aclose()
    return by_category([row.category for row in rows], [row.correct for row in rows], [again.get(row.key) for row in rows])


async def _asked(run: Path, settings: JudgeSettings, sample: int, seed: int) -> dict[str, Agreement]:
    judge = Judge(settings)
    try:
        await judge.ping()
    finally:
        await judge.aclose()
    return await rejudge(run, settings, sample=sample, seed=seed)


def main(arguments: list[str] | None = None, *, prog: str = "python -m evaluation.runs.rejudge") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", type=Path, help="a run that a judge scored")
    add_judge_options(parser)
    parser.add_argument("--sample", type=int, default=200, help="answers at most")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    if not options.judge_base_url:
        parser.error("--judge-base-url is missing; there must be another judge, or the same one again")
    with program(prog), sign_of_life("judging again"):
        found = asyncio.run(_asked(options.run, judge_settings(options), options.sample, options.seed))
    if options.json:
        print_json({name: asdict(agreement) for name, agreement in found.items()})
        return
    for name, agreement in found.items():
        flips = ", ".join(f"{way} {count}" for way, count in sorted(agreement.flips.items())) or "none"
        share = "-" if agreement.agreement is None else f"{agreement.agreement:.1%}"
        kappa = "-" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        said = f"{agreement.compared} compared, {agreement.undecided} undecided, agreement {share}, kappa {kappa}"
        said += f", flips: {flips}"
        sys.stdout.write(f"{name or '(none)'}: {said}\n")


if __name__ == "__main__":
    main()
