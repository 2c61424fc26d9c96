"""The published suite with one command; `bash evaluation/run_benchmarks.sh` is the way in.

    bash evaluation/run_benchmarks.sh --suite perception --data datasets/eval --model CHECKPOINT --out runs/eval [--dry-run]

Every benchmark is a run of its own in a folder of `--out`, which the same command resumes; at the end stands
`leaderboard.html`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.data_folders import data_folder
from evaluation.benchmarks import Benchmark, benchmarks, load_benchmark
from evaluation.reports.leaderboard import write_leaderboard
from evaluation.reports.run_page import headline, write_run_report
from evaluation.run import ERRORS, add_model_options, infer_run, score_run, settings_from
from evaluation.runs.folder import Latest
from serving.vllm import serve_checkpoint

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
    shards."""
    for base in (folder, folder / benchmark.name):
        for name in benchmark.files:
            for candidate in (base / name, base / Path(name).with_suffix(".json"), base / Path(name).with_suffix("")):
                if candidate.exists():
                    return candidate
    return None


def parser() -> argparse.ArgumentParser:
    """Of the suite; evaluation/smoke/suite.py adds `smoke`."""
    found = argparse.ArgumentParser(
        prog="run_benchmarks.sh", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    found.add_argument("--suite", default="all", choices=(*SUITES, "all", "smoke"))
    found.add_argument("--benchmarks", help="comma-separated names instead of a suite")
    found.add_argument("--data", type=Path, help="folder of the published files; by default datasets/eval")
    found.add_argument("--out", type=Path, required=True, help="folder of the runs")
    found.add_argument("--skip-missing", action="store_true", help="leave out benchmarks whose file is not there")
    found.add_argument("--dry-run", action="store_true", help="say what would be asked, and what it would cost; ask nothing")
    found.add_argument(
        "--tokens-per-s", type=float, default=2500.0, help="that the servers write together, for the estimate"
    )
    found.add_argument(
        "--usd-per-million", type=float, nargs=2, default=(0.0, 0.0), metavar=("IN", "OUT"), help="for the estimate"
    )
    add_model_options(found)
    return found


def main(options: argparse.Namespace, *, chosen: Sequence[str] | None = None) -> int:
    """Run the suite.

    Returns:
        0 if every benchmark was run and scored.

    Raises:
        LookupError: An unknown benchmark or suite.
        ValueError: No model, or files are missing.
    """
    if chosen is None:
        chosen = [name.strip() for name in options.benchmarks.split(",")] if options.benchmarks else names_of(options.suite)
    folder = options.data or data_folder("eval")
    files = {name: find_data(load_benchmark(name), folder) for name in chosen}
    if options.dry_run:
        sys.stdout.write(estimate(files, options))
        return 0
    missing = [name for name, path in files.items() if path is None]
    if missing and not options.skip_missing:
        raise ValueError(
            f"no file in {folder} for {', '.join(missing)}; get them with `python -m data.fetch {missing[0]} …`, or "
            "leave them out with --skip-missing"
        )
    if options.model is None:
        raise ValueError("--model is missing: a checkpoint folder, or the served name with --base-url")
    return _run_all({name: path for name, path in files.items() if path is not None}, options)


def _run_all(files: dict[str, Path], options: argparse.Namespace) -> int:
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        options = copy.copy(options)
        served_name = options.model
        if not options.base_url:
            # One server for all benchmarks: loading a model takes longer than some of them.
            log = options.out / "vllm.log"
            options.base_url = stack.enter_context(
                serve_checkpoint(Path(options.model), log=log, cpu=options.cpu, served_name=served_name)
            )
        for name, path in files.items():
            one = copy.copy(options)
            one.out = options.out / name
            try:
                settings = settings_from(one, name, path)
                infer_run(one, settings)
                summary = score_run(one, settings)
                write_run_report(one.out, one.out / "report.html")
            except ERRORS as error:
                failed[name] = str(error)
                sys.stderr.write(f"{name}: {error}\n")
                continue
            said = f"{name}: {headline(summary)} ({summary.headline}), {summary.not_evaluated} not evaluated\n"
            sys.stdout.write(said)
            sys.stdout.flush()
    runs = [options.out / name for name in files if name not in failed]
    if runs:
        write_leaderboard(runs, options.out)
        sys.stdout.write(f"{options.out / 'leaderboard.html'}\n")
    for name, reason in failed.items():
        sys.stdout.write(f"{name}: not done: {reason.splitlines()[0]}\n")
    return int(bool(failed))


def estimate(files: dict[str, Path | None], options: argparse.Namespace) -> str:
    """A table: items, replies, tokens, hours and money. Averages of episodes that are there already replace the published
    ones."""
    lines = [
        f"{'benchmark':22} {'file':12} {'items':>7} {'episodes':>9} {'M tokens out':>13} {'hours':>7} {'USD':>9}  judge"
    ]
    hours_all = usd_all = 0.0
    for name, path in files.items():
        benchmark = load_benchmark(name)
        items = min(benchmark.num_items, options.limit or benchmark.num_items)
        episodes = items * options.samples
        turns, tokens, prompt = _averages(options.out / name)
        out_tokens, in_tokens = episodes * tokens, episodes * turns * prompt
        hours = out_tokens / options.tokens_per_s / 3600
        usd = in_tokens / 1e6 * options.usd_per_million[0] + out_tokens / 1e6 * options.usd_per_million[1]
        hours_all, usd_all = hours_all + hours, usd_all + usd
        judge = ("needed" if benchmark.needs_judge else "not needed") + ("" if options.judge_base_url else ", none given")
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
