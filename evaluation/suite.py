"""The published suite with one command; `bash evaluation/run_benchmarks.sh` is the way in.

    bash evaluation/run_benchmarks.sh --suite perception --data datasets/eval --model CHECKPOINT --out runs/eval [--dry-run]

Every benchmark is a run of its own in a folder of `--out`, which the same command resumes; at the end stands
`leaderboard.html`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.data_folders import data_folder
from code_sandbox.command_line import NOT_SCORED, CommandParser, sign_of_life
from evaluation.benchmarks import Benchmark, benchmarks, load_benchmark
from evaluation.reports.leaderboard import write_leaderboard
from evaluation.reports.run_page import headline, write_run_report
from evaluation.run import (
    ERRORS,
    ModelOptions,
    add_model_options,
    infer_run,
    model_options,
    need_judge,
    ready,
    score_run,
    settings_for,
)
from evaluation.runs.folder import Latest
from evaluation.runs.readiness import NotReady
from evaluation.runs.serve import serve
from evaluation.runs.shortfall import shortfall

SUITES = ("perception", "math", "search")
_TURNS, _REPLY_TOKENS = 2.1, 355.0
"""Of an episode of the published model: 1.12 calls and the answer, 355 tokens (its training curves; shared by the project
page)."""
_PROMPT_TOKENS_A_TURN = 2500.0
"""A 1.6-megapixel image is 2,000 tokens of Qwen2.5-VL, and the prompt 500."""


def names_of(suite: str) -> list[str]:
    """Benchmarks of a suite; `all` is the whole published one.

    Raises:
        LookupError: Unknown suite.
    """
    wanted = SUITES if suite == "all" else (suite,)
    found = [name for name, benchmark in benchmarks().items() if benchmark.suite in wanted]
    if not found:
        raise LookupError(f"no suite {suite!r}; there are: {', '.join((*SUITES, 'all', 'smoke'))}")
    return found


def find_data(benchmark: Benchmark, folder: Path) -> Path | None:
    """The benchmark's published file in a folder, or in a folder of its name in it; MME-RealWorld may be a folder of
    shards.
    """
    for base in (folder, folder / benchmark.name):
        for name in benchmark.files:
            for candidate in (base / name, base / Path(name).with_suffix(".json"), base / Path(name).with_suffix("")):
                if candidate.exists():
                    return candidate
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteOptions:
    """Several runs of one model."""

    out: Path
    """Folder of the runs."""
    asked: ModelOptions
    suite: str = "all"
    benchmarks: tuple[str, ...] = ()
    """Instead of a suite."""
    data: Path | None = None
    """Folder of the published files; None is `eval` of the data folder."""
    skip_missing: bool = False
    dry_run: bool = False
    tokens_per_s: float = 2500.0
    """That the servers write together, for the estimate."""
    usd_per_million: tuple[float, float] = (0.0, 0.0)
    """Tokens read and written, for the estimate."""

    @property
    def chosen(self) -> Sequence[str]:
        """Names of benchmarks.

        Raises:
            LookupError: Unknown suite.
        """
        return self.benchmarks or names_of(self.suite)


def parse(arguments: list[str] | None = None) -> SuiteOptions:
    """The command line; evaluation/smoke/suite.py adds what `smoke` needs."""
    parser = CommandParser(prog="run_benchmarks.sh", description=__doc__)
    parser.add_argument("--suite", default="all", choices=(*SUITES, "all", "smoke"))
    parser.add_argument("--benchmarks", default="", help="comma-separated names instead of a suite")
    parser.add_argument("--data", type=Path, help="folder of the published files; by default datasets/eval")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--skip-missing", action="store_true", help="leave out benchmarks whose file is not there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked and what it would cost; ask nothing")
    parser.add_argument(
        "--tokens-per-s", type=float, default=2500.0, help="that the servers write together, for the estimate"
    )
    parser.add_argument(
        "--usd-per-million", type=float, nargs=2, default=(0.0, 0.0), metavar=("IN", "OUT"), help="for the estimate"
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return SuiteOptions(
        out=options.out,
        asked=model_options(options),
        suite=options.suite,
        benchmarks=tuple(name.strip() for name in options.benchmarks.split(",") if name.strip()),
        data=options.data,
        skip_missing=options.skip_missing,
        dry_run=options.dry_run,
        tokens_per_s=options.tokens_per_s,
        usd_per_million=tuple(options.usd_per_million),
    )


def run_suite(options: SuiteOptions) -> int:
    """Run the suite.

    Returns:
        0 if every benchmark was run and scored; 1 if one was not; 3 if too few episodes of one were evaluated.

    Raises:
        LookupError: An unknown benchmark or suite.
        ValueError: No model, or files are missing.
    """
    folder = options.data or data_folder("eval")
    files = {name: find_data(load_benchmark(name), folder) for name in options.chosen}
    if options.dry_run:
        sys.stdout.write(estimate(files, options))
        return 0
    missing = [name for name, path in files.items() if path is None]
    if missing and not options.skip_missing:
        raise ValueError(
            f"no file in {folder} for {', '.join(missing)}; get them with `deepeyes data fetch {missing[0]} …`, or "
            "leave them out with --skip-missing"
        )
    if options.asked.model is None:
        raise ValueError("--model is missing: a checkpoint folder, or the served name with --base-url")
    return _run_all({name: path for name, path in files.items() if path is not None}, options.out, options.asked)


def _run_all(files: Mapping[str, Path], folder: Path, asked: ModelOptions) -> int:
    failed: dict[str, str] = {}
    short: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if not asked.base_urls:
            # One server for all benchmarks: loading a model takes longer than some of them, and than to ask for the rest.
            name, path = next(iter(files.items()))
            ready(settings_for(asked, name, path), asked)
            model, log = str(asked.model), folder / "vllm.log"
            with sign_of_life("vLLM is starting"):
                url = stack.enter_context(serve(Path(model), log=log, cpu=asked.cpu, served_name=model))
            asked = replace(asked, base_urls=(url,))
        for name, path in files.items():
            try:
                said, short[name] = _run_one(folder / name, asked, name, path)
            except NotReady as error:
                failed[name] = str(error)
                sys.stderr.write(f"{name}: {error}\n")
                if _lacks_judge(name, asked):
                    continue
                break  # the others need the same servers
            except ERRORS as error:
                failed[name] = str(error)
                sys.stderr.write(f"{name}: {error}\n")
                continue
            sys.stdout.write(said)
            sys.stdout.flush()
    runs = [folder / name for name in files if name in short]
    if runs:
        write_leaderboard(runs, folder)
        sys.stdout.write(f"{folder / 'leaderboard.html'}\n")
    for name in files:
        if name not in short:
            sys.stdout.write(f"{name}: not done: {failed.get(name, 'the suite ended before it').splitlines()[0]}\n")
        elif short[name]:
            sys.stdout.write(f"{name}: {short[name]}\n")
    return 1 if len(short) < len(files) else NOT_SCORED if any(short.values()) else 0


def _lacks_judge(name: str, asked: ModelOptions) -> bool:
    return load_benchmark(name).needs_judge and not asked.scoring.judge.base_urls


def _run_one(out: Path, asked: ModelOptions, name: str, data: Path) -> tuple[str, str]:
    """Ask, score and report one benchmark.

    Returns:
        (a line on what came of it, what to say of it if too few of its episodes were evaluated)
    """
    need_judge(name, asked.scoring)
    settings = settings_for(asked, name, data)
    infer_run(out, settings, asked)
    summary = score_run(out, settings, asked.scoring)
    write_run_report(out, out / "report.html")
    line = f"{name}: {headline(summary)} ({summary.headline}), {summary.not_evaluated} not evaluated\n"
    return line, shortfall(summary)


def estimate(files: Mapping[str, Path | None], options: SuiteOptions) -> str:
    """A table: items, replies, tokens, hours and money. Averages of episodes that are there already replace the published
    ones.
    """
    lines = [
        f"{'benchmark':22} {'file':12} {'items':>7} {'episodes':>9} {'M tokens out':>13} {'hours':>7} {'USD':>9}  judge"
    ]
    hours_all, usd_all, judged = 0.0, 0.0, bool(options.asked.scoring.judge.base_urls)
    asked = replace(options.asked, model=options.asked.model or "")
    for name, path in files.items():
        benchmark, settings = load_benchmark(name), settings_for(asked, name, path or Path())
        items = min(benchmark.num_items, settings.limit or benchmark.num_items)
        episodes = items * settings.samples
        turns, tokens, prompt = _averages(options.out / name)
        out_tokens, in_tokens = episodes * tokens, episodes * turns * prompt
        hours = out_tokens / options.tokens_per_s / 3600
        usd = in_tokens / 1e6 * options.usd_per_million[0] + out_tokens / 1e6 * options.usd_per_million[1]
        hours_all, usd_all = hours_all + hours, usd_all + usd
        judge = ("needed" if benchmark.needs_judge else "not needed") + ("" if judged else ", none given")
        lines.append(
            f"{name:22} {'there' if path else 'missing':12} {items:7,} {episodes:9,} {out_tokens / 1e6:13.2f} {hours:7.2f} "
            f"{usd:9.2f}  {judge}"
        )
    lines.append(f"{'all':22} {'':12} {'':7} {'':9} {'':13} {hours_all:7.2f} {usd_all:9.2f}")
    lines.append(f"at {options.tokens_per_s:,.0f} tokens written a second; nothing was asked")
    return "\n".join(lines) + "\n"


def _averages(run: Path) -> tuple[float, float, float]:
    """(turns, tokens written, prompt tokens a turn) of an episode."""
    episodes = turns = tokens = prompt = 0
    for episode in Latest(run).values():
        if episode.turns:
            episodes, turns, tokens = episodes + 1, turns + len(episode.turns), tokens + episode.num_tokens
            prompt += sum(turn.reply.num_prompt_tokens for turn in episode.turns)
    if not episodes:
        return _TURNS, _REPLY_TOKENS, _PROMPT_TOKENS_A_TURN
    return turns / episodes, tokens / episodes, prompt / turns or _PROMPT_TOKENS_A_TURN
