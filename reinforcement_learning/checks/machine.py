"""What the machines must have: accelerators, nodes, the attention back-end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from typing import Any

from agent.recipes import RecipeError
from reinforcement_learning.recipe import Recipe
from reinforcement_learning.verl_adapter.cluster import asked_gpus, check_cluster, ray_address

_ATTENTION_KEY = "actor_rollout_ref.model.override_config.attn_implementation"
_MODULES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def check_nodes(recipe: Recipe) -> str:
    """GPUs that are asked for against those there are, and whatever else every node must have.

    Raises:
        RecipeError: All that is missing, by node.
    """
    problems = _missing_here(recipe) if ray_address() is None else []
    summary = ""
    try:
        summary = check_cluster(recipe, recipe.run.env)
    except RecipeError as error:
        problems.append(str(error))
    if problems:
        raise RecipeError("; ".join(problems))
    return summary


def check_attention(recipe: Recipe) -> str:
    """The attention back-end that verl would ask for is installed.

    Raises:
        RecipeError: It is not; names the overlay that does without.
    """
    implementation, remove_padding = attention(recipe)
    module = _MODULES.get(implementation)
    if remove_padding and module is None:
        # verl packs samples without padding and calls flash-attn for them, whatever the model was told.
        module = "flash_attn"
    if module is not None and importlib.util.find_spec(module) is None:
        why = f"attn_implementation {implementation}" + (", use_remove_padding true" if remove_padding else "")
        raise RecipeError(
            f"the recipe asks for {why}, and {module} is not installed: add --overlay _no_flash_attn (OVERLAY=… "
            "for the launcher), or build it with FLASH_ATTN=2.8.3 bash scripts/setup.sh gpu"
        )
    return implementation + (", padding removed" if remove_padding else "")


def attention(recipe: Recipe) -> tuple[str, bool]:
    """The implementation that the model is built with, and whether padding is removed; verl 0.9.1's defaults if unset."""
    model: dict[str, Any] = recipe.verl.get("actor_rollout_ref", {}).get("model", {})
    nested = (model.get("override_config") or {}).get("attn_implementation")
    implementation = recipe.verl_extra.get(_ATTENTION_KEY) or nested or "flash_attention_2"
    return str(implementation), bool(model.get("use_remove_padding", True))


def _missing_here(recipe: Recipe) -> list[str]:
    num_nodes, per_node = asked_gpus(recipe)
    asked = f"asked {num_nodes * per_node} GPUs (verl.trainer: {num_nodes} x {per_node})"
    if num_nodes > 1:
        return [
            f"{asked}, but RAY_ADDRESS is not set, so that Ray has this machine alone ({_gpus_here(recipe)} GPUs); "
            "start the nodes with reinforcement_learning/scripts/ray_head.sh and ray_worker.sh and export RAY_ADDRESS, or "
            "set verl.trainer.nnodes=1"
        ]
    here = _gpus_here(recipe)
    if here < per_node:
        return [f"{asked}, this machine has {here}; set verl.trainer.n_gpus_per_node, or join a cluster with RAY_ADDRESS"]
    return []


def _gpus_here(recipe: Recipe) -> int:
    """Accelerators that a local Ray would have; on the CPU platform those that the recipe pretends."""
    if recipe.verl.get("trainer", {}).get("device") == "cpu":
        ray_init = recipe.verl.get("ray_kwargs", {}).get("ray_init", {})
        return int(recipe.verl_extra.get("ray_kwargs.ray_init.num_gpus") or ray_init.get("num_gpus") or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    # A MIG device is listed under its GPU, indented.
    return sum(line.startswith("GPU ") for line in listed.splitlines())
