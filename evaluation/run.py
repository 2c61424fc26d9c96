"""Evaluate a model on a benchmark.

    python -m evaluation.run --benchmark vstar --data VStarBench.tsv --model CHECKPOINT_FOLDER --out runs/vstar
    python -m evaluation.run --benchmark vstar --data VStarBench.tsv --model NAME --base-url http://HOST:8000/v1 --out …

The same command again resumes; `--stage score` grades again without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.loading import plugin_names
from agent.recipes import read_yaml
from evaluation.benchmarks import BenchmarkError, load_benchmark
from evaluation.report import write_run_report
from evaluation.runner import RunMismatch, RunSettings, RunStopped, finished_items, infer, open_run, score
from evaluation.vllm_server import ServerFailed, serve_checkpoint


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Evaluate a model through the episode loop.")
    parser.add_argument("--benchmark", required=True, help=f"one of {', '.join(plugin_names('evaluation.benchmarks'))}")
    parser.add_argument("--data", required=True, type=Path, help="the benchmark's own file")
    parser.add_argument("--model", required=True, help="a checkpoint folder, or the served name with --base-url")
    parser.add_argument("--base-url", help="of an OpenAI-compatible server, with /v1; by default vLLM is started")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    parser.add_argument("--mode", choices=("agent", "direct"), default="agent")
    parser.add_argument("--prompt", help="by default the benchmark's own")
    parser.add_argument("--tools", default="python", help="comma-separated names of agent/tools")
    parser.add_argument("--search", type=Path, help="YAML with `search:` and `image_search:` blocks, as in RL recipes")
    parser.add_argument("--max-turns", type=int, default=9)
    parser.add_argument("--max-reply-tokens", type=int, default=8192)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--primer", default="", help="put before each reply after an observation, such as '<think>'")
    parser.add_argument("--limit", type=int, help="first so many items only")
    parser.add_argument("--max-in-flight", type=int, default=32)
    parser.add_argument("--stage", choices=("all", "infer", "score"), default="all")
    parser.add_argument("--cpu", action="store_true", help="start vLLM with settings for a CPU and a tiny model")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (BenchmarkError, RunMismatch, RunStopped, ServerFailed, LookupError, OSError, ValueError) as error:
        sys.exit(f"evaluation: {error}")


def _run(options: argparse.Namespace) -> None:
    benchmark = load_benchmark(options.benchmark)
    sources = read_yaml(options.search) if options.search else {}
    if unknown := sources.keys() - {"search", "image_search"}:
        raise ValueError(f"{options.search} has {', '.join(sorted(unknown))}; expected search and image_search")
    settings = RunSettings(
        **sources,
        tools=tuple(options.tools.split(",")),
        benchmark=options.benchmark,
        data=str(options.data),
        model=options.model,
        mode=options.mode,
        prompt=options.prompt or benchmark.PROMPT,
        max_turns=options.max_turns,
        max_reply_tokens=options.max_reply_tokens,
        temperature=options.temperature,
        primer=options.primer,
        limit=options.limit,
    )
    # The whole file is read once before a model is started: a broken row is found now and not after an hour.
    total = sum(1 for _ in benchmark.load(options.data))
    total = min(total, options.limit or total)
    if total == 0:
        raise BenchmarkError(f"{options.data} holds no items")
    open_run(options.out, settings)
    if options.stage != "score" and len(finished_items(options.out)) < total:
        _infer(options, settings, total)
    if options.stage != "infer":
        summary = score(options.out, benchmark, benchmark.load(options.data), limit=options.limit)
        write_run_report(options.out, options.out / "report.html")
        print(json.dumps(summary, indent=1))


def _infer(options: argparse.Namespace, settings: RunSettings, total: int) -> None:
    with contextlib.ExitStack() as stack:
        served_name = options.model
        base_url = options.base_url
        if base_url is None:
            served_name = "policy"
            base_url = stack.enter_context(
                serve_checkpoint(Path(options.model), log=options.out / "vllm.log", cpu=options.cpu)
            )
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
        )
        task = progress.add_task(f"{settings.benchmark} ({settings.mode})", total=total)
        asyncio.run(
            infer(
                options.out,
                load_benchmark(options.benchmark).load(options.data),
                settings,
                base_url=base_url,
                served_name=served_name,
                sandbox_url=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"),
                max_in_flight=options.max_in_flight,
                on_done=lambda count: progress.update(task, completed=count),
            )
        )


if __name__ == "__main__":
    main()
