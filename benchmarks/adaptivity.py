"""Does RL teach a model to use its tools where they are needed, and only there? On two CPU cores, through the real stack.

    python -m benchmarks.adaptivity [--task mark|chain] [--seeds 0,1,2] [--turn-cost 0.2] [--control] [--direct] [--guess]

One seed: questions of a family, a model of one million parameters, cold start with LLaMA-Factory, GRPO with verl, Ray, vLLM
and the sandbox, and 200 held-out questions asked (greedily) after each. `mark` (data/families/mark.py): a colour that is
legible at once or only in a crop; its cold start uses the tool nearly always. `chain` (data/families/chain.py): a crop and a
search in one episode, or a search alone; its cold start mostly guesses, and copies no text yet (benchmarks/README.md).

The tool rate is the share of episodes that used every tool of the family, and adaptivity is that rate where all are needed
minus that where they are not. The rollouts of training, which are sampled, are counted beside it, those of the first and of
the last steps. `--control` trains a second time from the same cold start, without a cost. What is finished is not run again.

Advantages are not divided by the deviation of their group (`verl.algorithm.norm_adv_by_std_in_grpo=true` brings that back):
in a group that is all right any cost would have full strength, and a lucky guess would outweigh the wrong ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.trajectory import RecordReader, record_files
from data.families import load_family
from data.families._demonstrations import DirectShares
from data.families._files import Amounts, write_family
from deepeyes.quickstart.tiny_model import make_tiny_model
from evaluation.runs.rows import read_scores
from evaluation.runs.summary import read_summary
from serving import processes

_TIMEOUT_S = 3600.0
_IMAGE_MAX_PIXELS = 12_544
_COUNTED_STEPS = 3
_SANDBOX_ARGUMENTS = ("--max-sessions", "128", "--spare-kernels", "48", "--require-level", "0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A family, and what is trained on it where the command line says nothing else."""

    family: str
    needed: str
    """Kind of the questions that need every tool of the family."""
    not_needed: str
    shares: DirectShares
    turn_cost: float
    num_sft: int
    sft_steps: int
    batch: int
    """Conversations of a step of the cold start."""
    rl_steps: int
    sft_options: tuple[str, ...] = ()
    rl_options: tuple[str, ...] = ()
    """Beside those of the recipe, as `name=value`."""


TASKS = {
    "mark": Task(
        family="mark",
        needed="crop",
        not_needed="direct",
        shares=DirectShares(not_needed=0.4, needed=0.1),
        turn_cost=0.2,
        num_sft=2400,
        sft_steps=600,
        batch=16,
        rl_steps=16,
    ),
    "chain": Task(
        family="chain",
        needed="both",
        not_needed="search",
        shares=DirectShares(needed=0.6),
        turn_cost=0.1,
        num_sft=2400,
        sft_steps=1000,
        batch=8,
        rl_steps=16,
        sft_options=("cutoff_len=768",),
        rl_options=(
            "agent.tools=[python,search]",
            "agent.prompt=families",
            "verl.data.max_prompt_length=256",
            "verl.data.max_response_length=448",
            "verl.actor_rollout_ref.rollout.max_model_len=768",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is trained."""

    task: Task
    turn_cost: float
    control: bool
    shares: DirectShares
    num_sft: int
    sft_steps: int
    rl_steps: int
    rl_options: tuple[str, ...]
    """Further values of the RL recipe, as `name=value`."""

    @property
    def arms(self) -> dict[str, float]:
        """Name -> turn cost of each RL run."""
        return {f"cost {self.turn_cost:g}": self.turn_cost} | ({"no cost": 0.0} if self.control else {})


@dataclass(frozen=True, slots=True)
class Asked:
    """One episode: the kind of its question, whether it was right, and the tools that it used."""

    kind: str
    correct: bool
    tools: frozenset[str]


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on questions of which every tool is needed, and on those of which it is not: (needed, not needed)."""

    accuracy: tuple[float, float]
    tool_rate: tuple[float, float]
    """Share of episodes that used every tool of the family."""

    @property
    def adaptivity(self) -> float:
        """Tool rate where it is needed minus where it is not."""
        return self.tool_rate[0] - self.tool_rate[1]


def measure(episodes: Iterable[Asked], task: Task) -> Measured:
    """Accuracy and tool rate of each kind; 0 where there is no episode of it."""
    tools = frozenset(load_family(task.family).tools)
    asked = list(episodes)
    by_kind = [[one for one in asked if one.kind == kind] for kind in (task.needed, task.not_needed)]
    accuracy = [sum(one.correct for one in of_kind) / max(1, len(of_kind)) for of_kind in by_kind]
    tool_rate = [sum(tools <= one.tools for one in of_kind) / max(1, len(of_kind)) for of_kind in by_kind]
    return Measured((accuracy[0], accuracy[1]), (tool_rate[0], tool_rate[1]))


class SeedRun:
    """One seed's folder: `data`, `models`, a folder for each RL run, `eval`, `logs`."""

    def __init__(self, folder: Path, seed: int, plan: Plan) -> None:
        self._folder = folder
        self._seed = seed
        self._plan = plan
        self._family = load_family(plan.task.family)
        self._env = {
            "QUICKSTART_RUN": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "WANDB_MODE": "disabled",
        }

    def run(self) -> dict[str, Measured]:
        """Model -> what was measured: after the cold start, and after each RL run."""
        self._once("data", self._data)
        self._once("sft", self._sft)
        self._once("eval sft", partial(self._eval, "sft"))
        measured = {"cold start": self._measured("sft")}
        for name, cost in self._plan.arms.items():
            short = name.replace(" ", "_")
            self._once(f"rl {short}", partial(self._rl, short, cost))
            self._once(f"eval {short}", partial(self._eval, short))
            measured[name] = self._measured(short)
            measured |= self._sampled(name, short)
        return measured

    def _once(self, name: str, work: Callable[[], None]) -> None:
        marker = self._folder / "stages" / name.replace(" ", "_")
        if marker.exists():
            return
        started = time.monotonic()
        work()
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        print(f"seed {self._seed}: {name} took {time.monotonic() - started:.0f} s", flush=True)

    def _data(self) -> None:
        data = self._folder / "data"
        write_family(
            self._family, data, seed=self._seed, amounts=Amounts(sft=self._plan.num_sft), shares=self._plan.shares
        )
        conversations = json.loads((data / "sft.json").read_text(encoding="utf-8"))
        texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
        make_tiny_model(texts, self._folder / "models/base", seed=self._seed)

    def _sft(self) -> None:
        steps = self._plan.sft_steps
        batch = f"per_device_train_batch_size={self._plan.task.batch}"
        values = (f"seed={self._seed}", f"max_steps={steps}", f"save_steps={steps}", batch, *self._plan.task.sft_options)
        self._program(["bash", "cold_start/run_cold_start.sh", "tiny_cpu", *values], "sft")

    def _rl(self, name: str, cost: float) -> None:
        run = self._folder / name
        with self._sandbox() as url:
            self._python(
                "reinforcement_learning.train", "--recipe", "tiny_cpu", f"run.directory={run}",
                f"verl.data.seed={self._seed}", f"verl.actor_rollout_ref.rollout.seed={self._seed}",
                f"agent.reward.turn_cost={cost}", f"verl.trainer.total_training_steps={self._plan.rl_steps}",
                f"agent.max_turns={self._family.num_replies}", *(f"agent.search={block}" for block in self._search()),
                *self._plan.task.rl_options, *self._plan.rl_options, log=name, CODE_SANDBOX_URL=url,
            )  # fmt: skip
        target = self._folder / "models" / name
        shutil.rmtree(target, ignore_errors=True)
        self._python("reinforcement_learning.export", str(run), "--out", str(target), "--dtype", "float32", log="export")

    def _eval(self, name: str) -> None:
        with self._sandbox() as url:
            self._python(
                "evaluation.run", "--benchmark", "families", "--data", str(self._folder / "data/benchmark.tsv"),
                "--model", str(self._folder / "models" / name), "--out", str(self._folder / "eval" / name),
                "--max-turns", str(self._family.num_replies), "--max-reply-tokens", "112",
                "--image-max-pixels", str(_IMAGE_MAX_PIXELS), *(f"--search={block}" for block in self._search()), "--cpu",
                log=f"eval_{name}", CODE_SANDBOX_URL=url,
            )  # fmt: skip

    def _search(self) -> list[str]:
        """The block of the local index, as one value; none where the family does not search."""
        return [f"{{provider: local, path: {self._folder / 'data/pages.jsonl'}}}"] if self._family.pages else []

    def _measured(self, name: str) -> Measured:
        summary = read_summary(self._folder / "eval" / name)
        if summary.not_evaluated:
            raise RuntimeError(f"{summary.not_evaluated} items of {name} were not evaluated; see {self._folder}/eval/{name}")
        rows = read_scores(self._folder / "eval" / name)
        return measure(
            (Asked(row.category, bool(row.correct), frozenset(call.tool for call in row.calls)) for row in rows),
            self._plan.task,
        )

    def _sampled(self, name: str, short: str) -> dict[str, Measured]:
        """The rollouts of the first and of the last steps."""
        heads = [
            head for path in record_files(self._folder / short / "rollouts") for _, head in RecordReader(path).heads()
        ]
        last = self._plan.rl_steps
        parts = {
            f"{name}, sampled in steps 1 to {_COUNTED_STEPS}": range(1, _COUNTED_STEPS + 1),
            f"{name}, sampled in steps {last - _COUNTED_STEPS + 1} to {last}": range(last - _COUNTED_STEPS + 1, last + 1),
        }
        return {
            part: measure(
                (
                    Asked(head.facts.category, bool(head.facts.correct), frozenset(head.tools))
                    for head in heads
                    if head.facts.step in steps
                ),
                self._plan.task,
            )
            for part, steps in parts.items()
        }

    @contextlib.contextmanager
    def _sandbox(self) -> Iterator[str]:
        logs = self._folder / "logs"
        with (
            processes.marked(),
            processes.redis_server(logs) as redis_url,
            processes.sandbox_server(logs, redis_url, arguments=_SANDBOX_ARGUMENTS) as url,
        ):
            yield url

    def _python(self, module: str, *arguments: str, log: str, **env: str) -> None:
        self._program([sys.executable, "-m", module, *arguments], log, **env)

    def _program(self, command: list[str], log: str, **env: str) -> None:
        path = self._folder / "logs" / f"{log}.log"
        processes.run(command, log=path, env=self._env | env, timeout_s=_TIMEOUT_S)


def _rows(seed: int, measured: dict[str, Measured]) -> list[list[str]]:
    return [
        [
            str(seed), name, *(f"{rate:.2f}" for rate in one.tool_rate), f"{one.adaptivity:.2f}",
            *(f"{accuracy:.1%}" for accuracy in one.accuracy),
        ]
        for name, one in measured.items()
    ]  # fmt: skip


HEADER = ("seed", "model", "tool rate, needed", "not needed", "adaptivity", "accuracy, needed", "not needed")


def _plan(options: argparse.Namespace) -> Plan:
    task = TASKS[options.task]

    def given(value: Any, default: Any) -> Any:
        return default if value is None else value

    return Plan(
        task=task,
        turn_cost=given(options.turn_cost, task.turn_cost),
        control=options.control,
        shares=DirectShares(
            not_needed=given(options.direct, task.shares.not_needed), needed=given(options.guess, task.shares.needed)
        ),
        num_sft=given(options.sft, task.num_sft),
        sft_steps=given(options.sft_steps, task.sft_steps),
        rl_steps=given(options.rl_steps, task.rl_steps),
        rl_options=tuple(options.rl_option),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), default="mark", help="the family (%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/adaptivity/TASK)")
    parser.add_argument("--control", action="store_true", help="train without a cost as well")
    of_task = "by default the task's own, TASKS above"
    parser.add_argument("--turn-cost", type=float, help=f"off a right answer, a turn ({of_task})")
    parser.add_argument("--direct", type=float, help=f"share of answers at once where no tool is needed ({of_task})")
    parser.add_argument("--guess", type=float, help=f"share of answers at once where one is ({of_task})")
    parser.add_argument("--sft", type=int, help=f"conversations ({of_task})")
    parser.add_argument("--sft-steps", type=int, help=f"of the cold start ({of_task})")
    parser.add_argument("--rl-steps", type=int, help=f"of 64 rollouts ({of_task})")
    parser.add_argument("rl_option", nargs="*", metavar="NAME=VALUE", help="further values of the RL recipe")
    options = parser.parse_args()
    # A kill from outside cleans up like Ctrl-C, which a shell that started us in the background has had ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    plan = _plan(options)
    out = (options.out or Path("runs/adaptivity") / options.task).resolve()
    lines = []
    for seed in map(int, options.seeds.split(",")):
        lines += _rows(seed, SeedRun(out / f"seed{seed}", seed, plan).run())
    for row in (HEADER, ("---",) * len(HEADER), *lines):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
