"""Evaluate a model on a benchmark.

    python -m evaluation.run --benchmark vstar --data VStarBench.tsv --model CHECKPOINT_FOLDER --out runs/vstar
    python -m evaluation.run --benchmark vstar --data VStarBench.tsv --model NAME --base-url
    http://A:8000/v1,http://B:8000/v1 --out … python -m evaluation.run --out runs/vstar --stage score --profile
    deepeyesv2-fork      # again, without a model

The same command again resumes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agent.options import add_agent_options, given_settings, settings_of
from agent.settings import with_sources
from agent.setup import primer_of
from evaluation.benchmarks import benchmarks, load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.exchange.predictions import import_predictions
from evaluation.reports.run_page import write_run_report
from evaluation.runs.ask import RunStopped, infer
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import finished, open_run, read_items
from evaluation.runs.provenance import read_provenance
from evaluation.runs.score import score
from evaluation.runs.settings import MODES, RunSettings
from evaluation.runs.summary import RunSummary
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import PROFILES, load_profile
from judge.client import Judge, JudgeMisconfigured, JudgeSettings
from serving.processes import ProgramFailed
from serving.urls import split_urls
from serving.vllm import serve_checkpoint

STAGES = ("all", "infer", "score", "report")
ERRORS = (BenchmarkError, RunMismatch, RunStopped, ProgramFailed, JudgeMisconfigured, LookupError, OSError, ValueError)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, how it is asked, and who judges; shared with evaluation/suite.py."""
    parser.add_argument("--model", help="a checkpoint folder, or the served name with --base-url")
    parser.add_argument(
        "--base-url", help="of OpenAI-compatible servers, with /v1, comma-separated; by default vLLM is started"
    )
    parser.add_argument(
        "--dialect", choices=("vllm", "openai"), default="vllm", help="`openai` for servers that are not vLLM"
    )
    parser.add_argument("--mode", choices=MODES, default="agent")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=1, help="episodes an item; more give mean@k and pass@k")
    parser.add_argument("--seed", type=int, help="of sampling")
    parser.add_argument("--limit", type=int, help="first so many items only")
    parser.add_argument("--max-episodes", type=int, default=32, help="at once, and requests to the model")
    parser.add_argument("--patience-s", type=float, default=30.0, help="to wait while no model server answers")
    parser.add_argument("--cpu", action="store_true", help="start vLLM with settings for a CPU and a tiny model")
    add_scoring_options(parser)
    add_agent_options(parser, instead={"prompt": "the benchmark's own", "tools": "the benchmark's own that have a source"})


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Whose rules, and who judges."""
    parser.add_argument("--profile", choices=tuple(PROFILES), default="vlmevalkit", help="whose scoring rules")
    parser.add_argument(
        "--parity", action="store_true", help="unusable judge replies count as in the reference: wrong, or a seeded draw"
    )
    parser.add_argument(
        "--judge-base-url", default=os.environ.get("LLM_AS_A_JUDGE_BASE", ""), help="comma-separated, with /v1"
    )
    parser.add_argument("--judge-model", default="judge")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepeyes eval", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--benchmark", help=f"one of {', '.join(benchmarks())}")
    parser.add_argument("--data", type=Path, help="the benchmark's own file")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    parser.add_argument("--stage", choices=STAGES, default="all", help="`score` and `report` need only --out")
    parser.add_argument(
        "--predictions", type=Path, help="score this file of VLMEvalKit or lmms-eval instead of asking a model"
    )
    parser.add_argument("--against", type=Path, help="another scored run over the same items, shown beside it in the report")
    add_model_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(arguments)
    try:
        summary = _run(options)
    except ERRORS as error:
        sys.exit(f"evaluation: {error}")
    if summary is not None:
        print(json.dumps({name: getattr(summary, name) for name in _BRIEF}, indent=1))


_BRIEF = (
    "benchmark", "headline", "headline_score", "scores", "items", "episodes", "not_evaluated", "tool_rate", "profile",
    "judge", "rules", "rules_before",
)  # fmt: skip
"""What a terminal shows of a summary."""


def _run(options: argparse.Namespace) -> RunSummary | None:
    if options.stage in ("score", "report") and (options.out / "run.json").exists():
        settings = read_provenance(options.out).settings
    else:
        missing = [name for name in ("benchmark", "data", "model") if getattr(options, name) is None]
        if missing:
            raise ValueError(f"--{', --'.join(missing)} is missing; only --stage score and report of a run do without")
        settings = settings_from(options, options.benchmark, options.data)
    if settings.predictions is not None and options.stage in ("all", "infer"):
        benchmark, data = load_benchmark(settings.benchmark), Path(settings.data)
        open_run(options.out, settings, benchmark, data)
        import_predictions(options.out, read_items(options.out), Path(settings.predictions), benchmark=settings.benchmark)
    elif options.stage in ("all", "infer"):
        infer_run(options, settings)
    summary = score_run(options, settings) if options.stage in ("all", "score") else None
    if options.stage != "infer":
        write_run_report(options.out, options.out / "report.html", against=options.against)
    return summary


def settings_from(options: argparse.Namespace, benchmark_name: str, data: Path) -> RunSettings:
    """The settings that the options ask for.

    Raises:
        LookupError: No such benchmark.
        ValueError: A setting that cannot be, or sources of search that are unknown.
    """
    benchmark = load_benchmark(benchmark_name)
    # A benchmark's tools without those that no source was named for; `run.json` and the report say which are left.
    given = given_settings(options)
    by_benchmark = {"prompt": benchmark.prompt, "tools": with_sources(benchmark.tools, given)}
    own = {name: getattr(options, name) for name in ("model", "mode", "temperature", "top_p", "samples", "seed", "limit")}
    predictions = getattr(options, "predictions", None)
    own |= {"benchmark": benchmark_name, "data": str(data), "predictions": str(predictions) if predictions else None}
    settings: RunSettings = settings_of(RunSettings, by_benchmark | given | own)
    return settings.model_copy(update={"primer": primer_of(settings, can_prime=options.dialect == "vllm")})


def infer_run(options: argparse.Namespace, settings: RunSettings) -> None:
    """Open the run and ask what is missing."""
    benchmark, data = load_benchmark(settings.benchmark), Path(settings.data)
    total = open_run(options.out, settings, benchmark, data) * settings.samples
    if len(finished(options.out)) >= total:
        return
    with contextlib.ExitStack() as stack:
        served_name, urls = settings.model, list(split_urls(options.base_url))
        if not urls:
            served_name = "policy"
            checkpoint = Path(settings.model)
            urls = [stack.enter_context(serve_checkpoint(checkpoint, log=options.out / "vllm.log", cpu=options.cpu))]
        update = stack.enter_context(_progress(f"{settings.benchmark} ({settings.mode})", total))
        asyncio.run(
            infer(
                options.out,
                benchmark.load(data),
                settings,
                base_urls=urls,
                served_name=served_name,
                api_key=os.environ.get("OPENAI_API_KEY", "EMPTY"),
                dialect=options.dialect,
                max_episodes=options.max_episodes,
                patience_s=options.patience_s,
                on_done=update,
            )
        )


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, completed=count)


def judge_settings(options: argparse.Namespace, cache: Path) -> JudgeSettings:
    """Who judges; what was asked before comes from the cache."""
    urls = split_urls(options.judge_base_url)
    return JudgeSettings(base_urls=urls, model=options.judge_model, cache=str(cache) if urls else None)


def score_run(options: argparse.Namespace, settings: RunSettings) -> RunSummary:
    """Score what was committed."""
    benchmark = load_benchmark(settings.benchmark)

    async def graded() -> RunSummary:
        judge = Judge(judge_settings(options, options.out / "judge.sqlite"))
        try:
            return await score(options.out, benchmark, Grader(load_profile(options.profile), judge, parity=options.parity))
        finally:
            await judge.aclose()

    return asyncio.run(graded())


if __name__ == "__main__":
    main()
