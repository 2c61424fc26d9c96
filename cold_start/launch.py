"""The environment in which LLaMA-Factory is started: how many processes, on how many nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError


@dataclass(frozen=True, slots=True)
class Launch:
    """Processes of this start."""

    num_nodes: int
    node_rank: int
    processes_per_node: int
    torchrun: bool
    """Whether LLaMA-Factory starts its processes through torchrun."""

    @property
    def num_processes(self) -> int:
        """Over all nodes."""
        return self.num_nodes * self.processes_per_node


def plan_launch(settings: Mapping[str, Any], environ: Mapping[str, str], num_gpus: int) -> Launch:
    """Decide how to start, from the variables that LLaMA-Factory reads.

    Args:
        settings: LLaMA-Factory's settings.
        environ: FORCE_TORCHRUN, NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
        num_gpus: On this machine.

    Raises:
        RecipeError: A variable is no number, or several nodes lack one; all such are named.

    Source: LLaMA-Factory 0.9.5, launcher.py and hparams/parser.py (DeepSpeed needs torchrun, on one GPU as well).
    """
    problems: list[str] = []
    num_nodes = _number(environ, "NNODES", 1, 1, problems)
    use_cpu = settings.get("use_cpu") is True
    processes = _number(environ, "NPROC_PER_NODE", 1 if use_cpu else max(1, num_gpus), 1, problems)
    node_rank = _number(environ, "NODE_RANK", 0, 0, problems)
    if num_nodes > 1:
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
        if missing:
            problems.append(
                f"NNODES is {num_nodes}, and not set: {', '.join(missing)}; every node needs its own NODE_RANK (0 first) "
                "and the same address and port of node 0"
            )
        if node_rank >= num_nodes:
            problems.append(f"NODE_RANK is {node_rank}, with {num_nodes} nodes it can be 0 to {num_nodes - 1}")
    asked = environ.get("FORCE_TORCHRUN", "0").lower() in ("true", "y", "1")
    if problems:
        raise RecipeError("; ".join(problems))
    # Without torchrun one process would see all GPUs, or DeepSpeed no process group.
    torchrun = asked or num_nodes > 1 or bool(settings.get("deepspeed")) or (not use_cpu and num_gpus > 1)
    if not torchrun:
        processes = 1
    return Launch(num_nodes, node_rank, processes, torchrun)


def launch_environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of `llamafactory-cli`."""
    # It calls `torchrun` by name, which is beside this Python, whether or not its environment is active.
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    changed = {"PATH": path, "NPROC_PER_NODE": str(launch.processes_per_node), "NNODES": str(launch.num_nodes)}
    if launch.torchrun:
        changed["FORCE_TORCHRUN"] = "1"
    return dict(environ) | changed


def batch_hint(settings: Mapping[str, Any], launch: Launch, batch_size: int | None) -> str:
    """How many conversations a step takes, and which setting keeps the published number.

    Args:
        settings: LLaMA-Factory's settings.
        launch: Processes of this start.
        batch_size: Published; None where there is none.
    """
    per_device = int(settings.get("per_device_train_batch_size", 8))
    accumulation = int(settings.get("gradient_accumulation_steps", 1))
    total = per_device * accumulation * launch.num_processes
    text = (
        f"{total} conversations a step: {launch.num_nodes} nodes x {launch.processes_per_node} processes x {per_device} "
        f"each x {accumulation} accumulated"
    )
    if batch_size is None or total == batch_size:
        return text
    wanted, rest = divmod(batch_size, per_device * launch.num_processes)
    if rest or not wanted:
        return f"{text}; {batch_size}, which the recipe's values were chosen for, cannot be reached with these processes"
    return f"{text}; for the {batch_size} that the recipe's values were chosen for: gradient_accumulation_steps={wanted}"


def _number(environ: Mapping[str, str], name: str, default: int, least: int, problems: list[str]) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        problems.append(f"{name} is {text!r}; expected a number of at least {least}")
        return default
    return int(text)
