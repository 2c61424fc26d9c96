"""Evaluate a model on a benchmark.

    deepeyes eval --benchmark vstar --data VStarBench.tsv --model CHECKPOINT_FOLDER --out runs/vstar
    deepeyes eval --benchmark vstar --data VStarBench.tsv --model NAME --base-url http://A:8000/v1,http://B:8000/v1 --out …
    deepeyes eval --out runs/vstar --stage score --profile deepeyesv2-fork      again, without a model

The same command again resumes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agent.chat_formats import begins_replies
from agent.model_keys import model_key
from agent.options import add_agent_options, add_option, given_settings, settings_of
from agent.settings import AgentSettings, with_sources
from agent.setup import primer_of
from code_sandbox.command_line import NOT_SCORED, CommandParser, end, positive, print_json, program, sign_of_life
from evaluation.benchmarks import benchmarks, load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.exchange.imports import import_predictions
from evaluation.reports.run_page import write_run_report
from evaluation.runs.ask import ModelServers, RunStopped, infer
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import finished, open_run, read_items
from evaluation.runs.provenance import read_provenance
from evaluation.runs.readiness import ModelAsked, NotReady, check_servers
from evaluation.runs.score import score
from evaluation.runs.serve import serve
from evaluation.runs.settings import EvaluationSettings
from evaluation.runs.shortfall import shortfall
from evaluation.runs.summary import RunSummary
from evaluation.scoring.grader import Grader
from evaluation.scoring.profiles import PROFILES, load_profile
from judge.client import Judge, JudgeMisconfigured, JudgeSettings
from judge.options import add_judge_options, judge_settings
from serving.processes import ProgramFailed
from serving.urls import split_urls

Stage = Literal["all", "infer", "score", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ERRORS = (
    BenchmarkError, RunMismatch, NotReady, RunStopped, ProgramFailed, JudgeMisconfigured, LookupError, OSError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringOptions:
    """Whose rules, and who judges."""

    profile: str = "vlmevalkit"
    parity: bool = False
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    """Without servers rules alone decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """Which model, how it is asked, and who judges: what all benchmarks of a suite have in common."""

    model: str | None
    """A checkpoint's folder, or the served name."""
    base_urls: tuple[str, ...] = ()
    """None: vLLM is started for the checkpoint."""
    dialect: Literal["vllm", "openai"] = "vllm"
    max_episodes: int = 32
    patience_s: float = 30.0
    cpu: bool = False
    given: Mapping[str, object] = field(default_factory=dict)
    """Settings of a run (evaluation/runs/settings.py) that were given, by name."""
    scoring: ScoringOptions = ScoringOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """One run."""

    out: Path
    asked: ModelOptions
    stage: Stage = "all"
    benchmark: str | None = None
    data: Path | None = None
    predictions: Path | None = None
    """Answers of another harness, instead of asking."""
    against: Path | None = None
    """Another scored run, to stand beside this one in the report."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, how it is asked, and who judges; shared with evaluation/suite.py."""
    parser.add_argument("--model", help="a checkpoint folder, or the served name with --base-url")
    parser.add_argument(
        "--base-url", help="of OpenAI-compatible servers, with /v1, comma-separated; by default vLLM is started"
    )
    parser.add_argument(
        "--dialect", choices=("vllm", "openai"), default="vllm", help="`openai` for servers that are not vLLM"
    )
    for name in ("mode", "temperature", "top_p", "samples", "seed", "limit", "outage_attempts", "repeated_outage"):
        add_option(parser, EvaluationSettings, name)
    parser.add_argument("--max-episodes", type=positive, default=32, help="at once, and requests to the model")
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
    add_judge_options(parser)


def model_options(options: argparse.Namespace) -> ModelOptions:
    """What `add_model_options` added, as it was given.

    Raises:
        RecipeError: A file of settings is broken, or has a name that is no setting.
        OSError: A file cannot be read.
    """
    return ModelOptions(
        model=options.model,
        base_urls=split_urls(options.base_url),
        dialect=options.dialect,
        max_episodes=options.max_episodes,
        patience_s=options.patience_s,
        cpu=options.cpu,
        given=given_settings(options),
        scoring=ScoringOptions(profile=options.profile, parity=options.parity, judge=judge_settings(options)),
    )


_PROGRAM = "python -m evaluation.run"


def parse(arguments: list[str] | None = None, prog: str = _PROGRAM) -> RunOptions:
    """The command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("--benchmark", help=f"one of {', '.join(benchmarks())}")
    parser.add_argument("--data", type=Path, help="the benchmark's own file")
    parser.add_argument("--out", required=True, type=Path, help="the run's folder")
    parser.add_argument("--stage", choices=STAGES, default="all", help="`score` and `report` need only --out")
    parser.add_argument(
        "--predictions", type=Path, help="score this file of VLMEvalKit or lmms-eval instead of asking a model"
    )
    parser.add_argument("--against", type=Path, help="another scored run over the same items, shown beside it in the report")
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return RunOptions(
        out=options.out,
        asked=model_options(options),
        stage=options.stage,
        benchmark=options.benchmark,
        data=options.data,
        predictions=options.predictions,
        against=options.against,
    )


_BRIEF = (
    "benchmark", "headline", "headline_score", "scores", "items", "episodes", "not_evaluated", "outages", "repeated_outages",
    "model_faults", "tool_rate", "profile",
    "judge", "rules", "rules_before",
)  # fmt: skip
"""What a terminal shows of a summary."""


def main(arguments: list[str] | None = None, *, prog: str = _PROGRAM) -> None:
    """Command line; ends with 3 if too few of the episodes could be evaluated for their score to say anything."""
    with program(prog, note="what was answered is kept, and the same command resumes"):
        summary = run(parse(arguments, prog))
        if summary is None:
            return
        print_json({name: getattr(summary, name) for name in _BRIEF})
        if too_few := shortfall(summary):
            end(NOT_SCORED, f"{prog}: {too_few}")


def run(options: RunOptions) -> RunSummary | None:
    """Ask, score and report, as far as the stage says.

    Returns:
        The summary, if the run was scored.
    """
    out, stage = options.out, options.stage
    if stage in ("score", "report") and (out / "run.json").exists():
        settings = read_provenance(out).settings
    else:
        settings = _asked_settings(options)
    if stage == "all":
        need_judge(settings.benchmark, options.asked.scoring)
    if settings.predictions is not None and stage in ("all", "infer"):
        if stage == "all":
            check_servers(AgentSettings(tools=()), None, options.asked.scoring.judge, say=_say)
        open_run(out, settings, load_benchmark(settings.benchmark), Path(settings.data))
        import_predictions(out, read_items(out), Path(settings.predictions))
    elif stage in ("all", "infer"):
        infer_run(out, settings, options.asked, scored=stage == "all")
    summary = score_run(out, settings, options.asked.scoring) if stage in ("all", "score") else None
    if stage != "infer":
        write_run_report(out, out / "report.html", against=options.against)
    return summary


def _asked_settings(options: RunOptions) -> EvaluationSettings:
    wanted = {"benchmark": options.benchmark, "data": options.data, "model": options.asked.model}
    if missing := [name for name, value in wanted.items() if value is None]:
        if options.stage in ("score", "report"):
            raise FileNotFoundError(f"{options.out} is no run, for want of a run.json; --stage {options.stage} wants one")
        raise ValueError(f"--{', --'.join(missing)} is missing; only --stage score and report of a run do without")
    assert options.benchmark is not None
    assert options.data is not None
    return settings_for(options.asked, options.benchmark, options.data, predictions=options.predictions)


def settings_for(
    asked: ModelOptions, benchmark_name: str, data: Path, *, predictions: Path | None = None
) -> EvaluationSettings:
    """The settings of a run over one benchmark.

    Raises:
        LookupError: No such benchmark.
        ValueError: A setting that cannot be, or sources of search that are unknown.
    """
    benchmark = load_benchmark(benchmark_name)
    # A benchmark's tools without those that no source was named for; `run.json` and the report say which are left.
    by_benchmark = {"prompt": benchmark.prompt, "tools": with_sources(benchmark.tools, asked.given)}
    own = {"benchmark": benchmark_name, "data": str(data), "model": asked.model}
    own |= {"predictions": str(predictions)} if predictions else {}
    settings: EvaluationSettings = settings_of(EvaluationSettings, {**by_benchmark, **asked.given, **own})
    if settings.imported:
        return settings
    can_prime = asked.dialect == "vllm" and not begins_replies(settings.model)
    return settings.model_copy(update={"primer": primer_of(settings, can_prime=can_prime)})


def infer_run(out: Path, settings: EvaluationSettings, asked: ModelOptions, *, scored: bool = True) -> None:
    """Open the run and ask what is missing.

    Args:
        out: The run's folder.
        settings: Of the run.
        asked: Of whom.
        scored: Whether it is scored at once, so that its judge must be there.

    Raises:
        NotReady: A server that is needed is not there, or is another; nothing was asked.
    """
    benchmark, data, is_new = load_benchmark(settings.benchmark), Path(settings.data), not (out / "run.json").exists()
    if is_new:
        if not data.exists():
            raise BenchmarkError(f"no file {data}; data/README.md says where to get it")
        ready(settings, asked, scored=scored)
    with sign_of_life(f"{settings.benchmark}: reading {data}"):
        total = open_run(out, settings, benchmark, data) * settings.samples
    if len(finished(out, settings)) >= total:
        return
    if not is_new:  # what is finished needs nobody
        ready(settings, asked, scored=scored)
    with contextlib.ExitStack() as stack:
        served_name, urls = settings.model, asked.base_urls
        if not urls:
            served_name, checkpoint = "policy", Path(settings.model)
            _say(f"starting vLLM for {checkpoint}, which takes minutes; its log is {out / 'vllm.log'}")
            with sign_of_life("evaluation: vLLM is starting"):
                urls = (stack.enter_context(serve(checkpoint, log=out / "vllm.log", cpu=asked.cpu)),)
        servers = ModelServers(
            base_urls=urls,
            served_name=served_name,
            api_key=model_key(urls),
            dialect=asked.dialect,
            max_episodes=asked.max_episodes,
            patience_s=asked.patience_s,
        )
        update = stack.enter_context(_progress(f"{settings.benchmark} ({settings.mode})", total))
        asyncio.run(infer(out, benchmark.load(data), settings, servers, on_done=update, on_wait=_say))


def _say(line: str) -> None:
    sys.stderr.write(f"evaluation: {line}\n")
    sys.stderr.flush()


def ready(settings: EvaluationSettings, asked: ModelOptions, *, scored: bool = True) -> None:
    """Ask every server of a run whether it is there, before anything is asked of the model.

    Raises:
        NotReady: One is not, or is not what was asked for.
    """
    urls = asked.base_urls
    model = ModelAsked(base_urls=urls, name=settings.model, api_key=model_key(urls)) if urls else None
    check_servers(settings.agent, model, asked.scoring.judge if scored else None, say=_say)


def need_judge(benchmark_name: str, scoring: ScoringOptions) -> None:
    """Refuse to score without a judge what only a judge can decide.

    Raises:
        LookupError: No such benchmark.
        NotReady: There is none.
    """
    if load_benchmark(benchmark_name).needs_judge and not scoring.judge.base_urls:
        raise NotReady(
            f"{benchmark_name} needs a judge, and none was named: nothing, or hardly anything, could be scored. Give "
            "--judge-base-url URL (`bash judge/serve.sh` starts one), or --stage infer now and --stage score later"
        )


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        with sign_of_life(lambda: f"{title}: {progress.tasks[0].completed:.0f} of {total}"):
            yield lambda count: progress.update(task, completed=count)


async def _ping(settings: JudgeSettings) -> None:
    judge = Judge(settings)
    try:
        await judge.ping()
    finally:
        await judge.aclose()


async def _judge_of(settings: JudgeSettings, cache: Path) -> Judge:
    """Who judges; what was asked before comes from the cache, which is all there is while the judge is away.

    Raises:
        WrongServer: It is not the judge that was asked for.
        ConnectionError: It is away, and was never asked anything.
    """
    if not settings.base_urls:
        return Judge(settings)
    try:
        await _ping(settings)
    except JudgeMisconfigured:
        raise
    except ConnectionError as error:
        if not cache.is_file():
            raise
        sys.stderr.write(f"{error}. Only what was judged before is scored; the rest is not evaluated.\n")
        settings = settings.model_copy(update={"attempts": 1, "patience_s": 0.0})
    return Judge(settings.model_copy(update={"cache": str(cache)}))


def score_run(out: Path, settings: EvaluationSettings, scoring: ScoringOptions) -> RunSummary:
    """Score what was committed; what a judge was asked before comes from its cache beside the run."""
    benchmark = load_benchmark(settings.benchmark)

    async def graded() -> RunSummary:
        judge = await _judge_of(scoring.judge, out / "judge.sqlite")
        try:
            return await score(out, benchmark, Grader(load_profile(scoring.profile), judge, parity=scoring.parity))
        finally:
            await judge.aclose()

    with sign_of_life(f"{settings.benchmark}: scoring"):
        return asyncio.run(graded())


if __name__ == "__main__":
    main()
