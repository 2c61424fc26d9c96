"""Does RL teach a model to use its tool where it is needed, and only there? On two CPU cores, through the real stack.

    python -m benchmarks.adaptivity [--seeds 0,1,2] [--turn-cost 0.2] [--control] [--direct 0.8] [--guess 0.2]

One seed: questions of the family `mark` (data/families/mark.py), a model of one million parameters, cold start with
LLaMA-Factory, GRPO with verl, Ray, vLLM and the sandbox, and 200 held-out questions asked (greedily) after each. Adaptivity
is the tool rate where a crop is needed minus that where none is. The rollouts of training, which are sampled, are counted
beside it, those of the first and of the last steps. `--control` trains a second time from the same cold start, without a
cost. What is finished is not run again.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.records import RolloutHead
from agent.trajectory import RecordReader, record_files
from data.families import load_family
from data.families._demonstrations import DirectShares
from data.families._files import Amounts, write_family
from deepeyes.quickstart.tiny_model import make_tiny_model
from evaluation.runs.summary import read_summary
from serving import processes

_TIMEOUT_S = 3600.0
_IMAGE_MAX_PIXELS = 12_544
_KINDS = ("crop", "direct")
_COUNTED_STEPS = 3
_SANDBOX_ARGUMENTS = ("--max-sessions", "128", "--spare-kernels", "48", "--require-level", "0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is trained."""

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
class Measured:
    """One model on the held-out questions."""

    accuracy: dict[str, float]
    """Kind -> share that is right; `crop` needs the tool, `direct` does not."""
    tool_rate: dict[str, float]

    @property
    def adaptivity(self) -> float:
        """Tool rate where it is needed minus where it is not."""
        return self.tool_rate["crop"] - self.tool_rate["direct"]


class SeedRun:
    """One seed's folder: `data`, `models`, a folder for each RL run, `eval`, `logs`."""

    def __init__(self, folder: Path, seed: int, plan: Plan) -> None:
        self._folder = folder
        self._seed = seed
        self._plan = plan
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
            load_family("mark"), data, seed=self._seed, amounts=Amounts(sft=self._plan.num_sft), shares=self._plan.shares
        )
        conversations = json.loads((data / "sft.json").read_text(encoding="utf-8"))
        texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
        make_tiny_model(texts, self._folder / "models/base", seed=self._seed)

    def _sft(self) -> None:
        steps = self._plan.sft_steps
        values = (f"seed={self._seed}", f"max_steps={steps}", f"save_steps={steps}", "per_device_train_batch_size=16")
        self._program(["bash", "cold_start/run_cold_start.sh", "tiny_cpu", *values], "sft")

    def _rl(self, name: str, cost: float) -> None:
        run = self._folder / name
        with self._sandbox() as url:
            self._python(
                "reinforcement_learning.train", "--recipe", "tiny_cpu", f"run.directory={run}",
                f"verl.data.seed={self._seed}", f"verl.actor_rollout_ref.rollout.seed={self._seed}",
                f"agent.reward.turn_cost={cost}", f"verl.trainer.total_training_steps={self._plan.rl_steps}",
                "verl.algorithm.norm_adv_by_std_in_grpo=false", *self._plan.rl_options, log=name, CODE_SANDBOX_URL=url,
            )  # fmt: skip
        target = self._folder / "models" / name
        shutil.rmtree(target, ignore_errors=True)
        self._python("reinforcement_learning.export", str(run), "--out", str(target), "--dtype", "float32", log="export")

    def _eval(self, name: str) -> None:
        with self._sandbox() as url:
            self._python(
                "evaluation.run", "--benchmark", "families", "--data", str(self._folder / "data/benchmark.tsv"),
                "--model", str(self._folder / "models" / name), "--out", str(self._folder / "eval" / name),
                "--max-turns", "2", "--max-reply-tokens", "112", "--image-max-pixels", str(_IMAGE_MAX_PIXELS), "--cpu",
                log=f"eval_{name}", CODE_SANDBOX_URL=url,
            )  # fmt: skip

    def _measured(self, name: str) -> Measured:
        summary = read_summary(self._folder / "eval" / name)
        if summary.not_evaluated:
            raise RuntimeError(f"{summary.not_evaluated} items of {name} were not evaluated; see {self._folder}/eval/{name}")
        kinds = {kind: summary.categories[kind] for kind in _KINDS}
        return Measured(
            {kind: found.accuracy or 0.0 for kind, found in kinds.items()},
            {kind: found.tool_rate or 0.0 for kind, found in kinds.items()},
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
            part: Measured(
                {kind: _share(heads, steps, kind, lambda head: bool(head.facts.correct)) for kind in _KINDS},
                {kind: _share(heads, steps, kind, lambda head: bool(head.tools)) for kind in _KINDS},
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


def _share(heads: Sequence[RolloutHead], steps: range, kind: str, holds: Callable[[RolloutHead], bool]) -> float:
    """Of the rollouts of some steps to questions of a kind: of how many something holds."""
    found = [holds(head) for head in heads if head.facts.step in steps and head.facts.category == kind]
    return sum(found) / len(found) if found else 0.0


def _rows(seed: int, measured: dict[str, Measured]) -> list[list[str]]:
    return [
        [
            str(seed), name, f"{one.tool_rate['crop']:.2f}", f"{one.tool_rate['direct']:.2f}", f"{one.adaptivity:.2f}",
            f"{one.accuracy['crop']:.1%}", f"{one.accuracy['direct']:.1%}",
        ]
        for name, one in measured.items()
    ]  # fmt: skip


HEADER = ("seed", "model", "tool rate, needed", "not needed", "adaptivity", "accuracy, needed", "not needed")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptivity"), help="folder of the runs (%(default)s)")
    parser.add_argument("--turn-cost", type=float, default=0.2, help="off a right answer, a turn (%(default)s)")
    parser.add_argument("--control", action="store_true", help="train without a cost as well")
    parser.add_argument("--direct", type=float, default=0.8, help="answers at once where no tool is needed (%(default)s)")
    parser.add_argument("--guess", type=float, default=0.2, help="answers at once where one is (%(default)s)")
    parser.add_argument("--sft", type=int, default=1200, help="conversations (%(default)s)")
    parser.add_argument("--sft-steps", type=int, default=350, help="of 16 conversations (%(default)s)")
    parser.add_argument("--rl-steps", type=int, default=12, help="of 64 rollouts (%(default)s)")
    parser.add_argument("rl_option", nargs="*", metavar="NAME=VALUE", help="further values of the RL recipe")
    options = parser.parse_args()
    # A kill from outside cleans up like Ctrl-C, which a shell that started us in the background has had ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    plan = Plan(
        turn_cost=options.turn_cost,
        control=options.control,
        shares=DirectShares(not_needed=options.direct, needed=options.guess),
        num_sft=options.sft,
        sft_steps=options.sft_steps,
        rl_steps=options.rl_steps,
        rl_options=tuple(options.rl_option),
    )
    lines = []
    for seed in map(int, options.seeds.split(",")):
        lines += _rows(seed, SeedRun(options.out.resolve() / f"seed{seed}", seed, plan).run())
    for row in (HEADER, ("---",) * len(HEADER), *lines):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
