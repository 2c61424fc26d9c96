"""The whole pipeline on a CPU, stage by stage. `bash scripts/quickstart.sh` is the way in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from code_sandbox.command_line import FAILED, CommandParser, program, sign_of_life
from deepeyes.quickstart.bases import BASES, DEFAULT_BASE, Base, base_of
from serving import processes
from serving.processes import ProgramFailed

_MIN_FREE_DISK_BYTES = 2 << 30
_MIN_FREE_MEMORY_BYTES = 10 << 30
# The toy model's code may run with whatever isolation the machine allows.
_SANDBOX_ARGUMENTS = ("--max-sessions", "128", "--spare-kernels", "48", "--require-level", "0")
_MODELS = ("base", "sft", "rl")
_STAGE_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline."""

    name: str
    explanation: str
    run: Callable[[Context], None]


@dataclass(slots=True)
class Context:
    """What stages share."""

    directory: Path
    seed: int
    progress: Progress
    task: TaskID
    stage: str
    judge: str = "rules"
    base: Base = BASES[DEFAULT_BASE]

    def told(self) -> str:
        """How far the stage is."""
        task = self.progress.tasks[-1]
        return f"{self.stage}: {task.percentage:.0f} % {task.fields['note']}".rstrip()

    @property
    def env(self) -> dict[str, str]:
        """The environment of every program: paths of this run, one thread each."""
        return {
            "QUICKSTART_RUN": str(self.directory),
            # Scripts call `python`; it must be ours, activated or not.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "WANDB_MODE": "disabled",
        }

    def log(self, name: str) -> Path:
        """A program's log file."""
        return self.directory / "logs" / f"{name}.log"

    def show(self, done: float, total: float, note: str = "") -> None:
        """Move the progress bar."""
        self.progress.update(self.task, completed=done, total=total, note=note)

    def python(self, module: str, *arguments: str, log: str, on_poll: Callable[[], None] | None = None, **env: str) -> None:
        """Run a module of ours as a program."""
        processes.run(
            [sys.executable, "-m", module, *arguments],
            log=self.log(log),
            env=self.env | env,
            on_poll=on_poll,
            timeout_s=_STAGE_TIMEOUT_S,
        )

    @contextlib.contextmanager
    def sandbox(self) -> Iterator[str]:
        """A Redis and a sandbox for as long as they are needed."""
        with (
            processes.marked(),
            processes.redis_server(self.directory / "logs") as redis_url,
            processes.sandbox_server(self.directory / "logs", redis_url, arguments=_SANDBOX_ARGUMENTS) as url,
        ):
            yield url

    @contextlib.contextmanager
    def llm_judge(self) -> Iterator[dict[str, str]]:
        """The cold-started model behind vLLM as a judge whose word is only recorded; yields what to add to the environment.

        One million parameters cannot judge. What this shows is that the judge's protocol works next to a running training.
        """
        if self.judge == "rules":
            yield {}
            return
        with processes.marked(), processes.judge_server(self.directory / "logs", self.directory / "models/sft") as url:
            yield {"LLM_AS_A_JUDGE_BASE": url}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _last(path: Path) -> dict[str, float]:
    for line in reversed(_lines(path)):
        with contextlib.suppress(ValueError):
            row: dict[str, float] = json.loads(line)
            return row
    return {}


def _data(context: Context) -> None:
    """Toy data, and a tiny untrained model whose tokenizer is made from it."""
    context.python(
        "deepeyes.quickstart.make", str(context.directory), str(context.seed), context.base.model_type, log="data"
    )


def _sft(context: Context) -> None:
    """LLaMA-Factory; resumed from its own checkpoint if there is one."""
    trainer_log = context.directory / "models/sft/trainer_log.jsonl"

    def poll() -> None:
        row = _last(trainer_log)
        if "total_steps" in row:
            note = f"loss {row['loss']:.3f}" if "loss" in row else ""
            context.show(row["current_steps"], row["total_steps"], note)

    base = context.base
    processes.run(
        [
            "bash", "cold_start/run_cold_start.sh", "tiny_cpu", f"seed={context.seed}",
            f"template={base.chat_format.llama_factory_template}", f"image_max_pixels={base.max_pixels}",
        ],
        log=context.log("sft"),
        env=context.env,
        on_poll=poll,
        timeout_s=_STAGE_TIMEOUT_S,
    )  # fmt: skip


def _rl(context: Context) -> None:
    """verl on Ray with vLLM; resumed from its own checkpoint if there is one."""
    run = context.directory / "rl"

    def poll() -> None:
        row = _last(run / "metrics.jsonl")
        if "episode/acc/mean" in row:
            note = f"accuracy {row['episode/acc/mean']:.2f}, tool use {row['episode/tool_used/mean']:.2f}"
            context.show(row["step"], _rl_steps(), note)

    with context.sandbox() as url, context.llm_judge() as judge:
        context.python(
            "reinforcement_learning.train", "--recipe", "tiny_cpu",
            f"verl.data.seed={context.seed}", f"verl.actor_rollout_ref.rollout.seed={context.seed}",
            f"agent.judge.log_only={str(bool(judge)).lower()}",
            # Sixteen questions that nothing else has used, asked twice: seconds.
            f"run.val_files=['{context.directory / 'data/rl_val.parquet'}']", f"verl.trainer.test_freq={_rl_steps() // 2}",
            log="rl", on_poll=poll, CODE_SANDBOX_URL=url, **judge,
        )  # fmt: skip
    target = context.directory / "models/rl"
    shutil.rmtree(target, ignore_errors=True)
    # In the precision that it was trained in, so that what is evaluated is what was trained.
    context.python("reinforcement_learning.export", str(run), "--out", str(target), "--dtype", "float32", log="export")


def _rl_steps() -> int:
    from reinforcement_learning.recipe import load_recipe

    return int(load_recipe("tiny_cpu").verl["trainer"]["total_training_steps"])


def _eval(context: Context) -> None:
    """The same episode loop as in training, against vLLM's OpenAI server, on questions that nothing else has used."""
    from reinforcement_learning.recipe import load_recipe

    image_max_pixels = load_recipe("tiny_cpu").agent.image_max_pixels
    items = len(_lines(context.directory / "data/benchmark.tsv")) - 1
    with context.sandbox() as url:
        for number, name in enumerate(_MODELS):
            out = context.directory / "eval" / name

            def poll(number: int = number, name: str = name, out: Path = out) -> None:
                context.show(number * items + len(_lines(out / "episodes.jsonl")), len(_MODELS) * items, name)

            context.python(
                "evaluation.run", "--benchmark", "families", "--data", str(context.directory / "data/benchmark.tsv"),
                "--model", str(context.directory / "models" / name), "--out", str(out),
                "--max-turns", "2", "--max-reply-tokens", "112", "--image-max-pixels", str(image_max_pixels), "--cpu",
                log=f"eval_{name}", on_poll=poll, CODE_SANDBOX_URL=url,
            )  # fmt: skip


def _report(context: Context) -> None:
    """One self-contained page."""
    from deepeyes.quickstart.report import write_report

    write_report(context.directory, context.directory / "report.html")


STAGES = (
    Stage("data", "draw boards with one mark, and make an untrained model of one million parameters", _data),
    Stage("sft", "cold start with LLaMA-Factory: learn the format and the tool, and to use it nearly always", _sft),
    Stage("rl", "GRPO with verl, Ray and vLLM: every rollout's code runs in the sandbox", _rl),
    Stage("eval", "ask the three models 200 new questions through the same episode loop", _eval),
    Stage("report", "write what happened", _report),
)


def _check_machine(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < _MIN_FREE_DISK_BYTES:
        raise ProgramFailed(
            f"{free >> 20:,} MiB free in {directory}; the run needs {_MIN_FREE_DISK_BYTES >> 20:,}. Free some, or set --run"
        )
    import psutil

    memory = psutil.virtual_memory().available
    if memory < _MIN_FREE_MEMORY_BYTES:
        raise ProgramFailed(
            f"{memory >> 30} GiB of memory free; the run needs {_MIN_FREE_MEMORY_BYTES >> 30}. Close something"
        )
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0  # noqa: S108 - only looked at
    if shared < 256 << 20:
        raise ProgramFailed(
            f"{shared >> 20} MiB free in /dev/shm; Ray and the weight transfer need 256. In a container set --shm-size=2g"
        )
    processes.redis_command()


def _marker(directory: Path, stage: Stage) -> Path:
    return directory / "stages" / f"{stage.name}.json"


def _run_stage(stage: Stage, context: Context, console: Console) -> None:
    marker = _marker(context.directory, stage)
    console.print(f"[bold]{stage.name:7}[/] {stage.explanation}")
    started = time.monotonic()
    marker.unlink(missing_ok=True)
    stage.run(context)
    elapsed = time.monotonic() - started
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"elapsed_s": round(elapsed, 1)}), encoding="utf-8")
    console.print(f"        [green]done in {elapsed:.0f} s[/]")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartOptions:
    """What is run, and where."""

    directory: Path
    stage: str | None = None
    """The one to run; None runs those that are not finished."""
    clean: bool = False
    base: str | None = None
    """Whose architecture the tiny model has; None is what the run was begun with, or the default."""
    judge: str = "rules"
    seed: int = 0


def _parse(arguments: list[str] | None) -> QuickstartOptions:
    parser = CommandParser(prog="quickstart.sh", description="The whole pipeline on a CPU.")
    parser.add_argument(
        "--stage", choices=[stage.name for stage in STAGES], help="run this stage only, even if it was finished"
    )
    parser.add_argument("--clean", action="store_true", help="delete the run first")
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="the run's folder")
    parser.add_argument(
        "--base",
        choices=sorted(BASES),
        help=f"whose architecture the tiny model has ({DEFAULT_BASE}, or what the run was begun with)",
    )
    parser.add_argument(
        "--judge",
        choices=("rules", "vllm"),
        default="rules",
        help="`vllm` also asks an LLM judge while RL runs (the tiny model behind real vLLM); what it says is only recorded",
    )
    parser.add_argument("--seed", type=int, default=0, help="of model, training and sampling")
    options = parser.parse_args(arguments)
    return QuickstartOptions(
        directory=options.run.resolve(),
        stage=options.stage,
        clean=options.clean,
        base=options.base,
        judge=options.judge,
        seed=options.seed,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _parse(arguments)
    console = Console(highlight=False)
    # A shell that started us in the background has it ignored, which Python would leave so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = options.directory
    if options.clean:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["QUICKSTART_RUN"] = str(directory)
    with program("quickstart.sh", note="nothing is left running, and the same command resumes here"):
        try:
            _check_machine(directory)
            passed = _run_all(options, console)
        except (ProgramFailed, OSError, ValueError) as error:
            console.print(f"[red]stopped:[/] {error}", markup=True, soft_wrap=True)
            console.print("The same command resumes here; logs are in", directory / "logs", soft_wrap=True)
            sys.exit(FAILED)
    sys.exit(0 if passed else FAILED)


def _run_all(options: QuickstartOptions, console: Console) -> bool:
    directory = options.directory
    stages = [stage for stage in STAGES if options.stage in (None, stage.name)]
    base = _base(options.base, directory)
    with Progress(
        TextColumn("        "), BarColumn(30), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"), console=console, transient=True,
    ) as progress:  # fmt: skip
        for stage in stages:
            if options.stage is None and stage.name != "report" and _marker(directory, stage).exists():
                console.print(f"[bold]{stage.name:7}[/] finished before")
                continue
            task = progress.add_task("", total=None, note="")
            context = Context(directory, options.seed, progress, task, stage.name, options.judge, base)
            with sign_of_life(context.told):
                _run_stage(stage, context, console)
            progress.remove_task(task)
    return _verdict(directory, console)


def _base(asked: str | None, directory: Path) -> Base:
    """The model to start from; a run goes on with the one that it was begun with.

    Raises:
        ProgramFailed: Another one is asked for.
    """
    begun = base_of(directory / "models/base")
    if begun is not None and asked is not None and begun.model_type != asked:
        raise ProgramFailed(
            f"{directory} was begun with --base {begun.model_type}, not {asked}; choose another folder (--run), or start "
            "over (--clean)"
        )
    return begun or BASES[asked or DEFAULT_BASE]


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _verdict(directory: Path, console: Console) -> bool:
    """Say what came out, and whether it is what a healthy run gives."""
    from deepeyes.quickstart.outcome import NEEDED, NOT_NEEDED, shortcomings, tool_rate
    from evaluation.runs.summary import read_summary

    runs = {name: directory / "eval" / name for name in _MODELS}
    summaries = {name: read_summary(run) for name, run in runs.items() if (run / "summary.json").exists()}
    if "rl" not in summaries:
        return True
    for name, summary in summaries.items():
        needed, other = (_percent(tool_rate(summary, kind)) for kind in (NEEDED, NOT_NEEDED))
        used = f"tool used on {needed} of questions that need it and on {other} of the others"
        console.print(f"        {name:4} accuracy {_percent(summary.accuracy)}, {used}")
    report = directory / "report.html"
    if report.exists():
        console.print(f"report: {report}", soft_wrap=True)
    wrong = shortcomings(summaries["rl"])
    if wrong:
        console.print(
            f"[red]After RL {'; '.join(wrong)} (docs/results.md).[/] Try another --seed with --run, and look at the curves "
            "in the report"
        )
    return not wrong


if __name__ == "__main__":
    main()
