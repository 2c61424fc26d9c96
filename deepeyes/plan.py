"""What a recipe will ask of the machines, as text.

deepeyes plan RECIPE [--gpus N] [--cold-start] [key=value …]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from agent.options import add_recipe, take_recipe
from code_sandbox.command_line import CommandParser, add_json_option, print_json, program
from reinforcement_learning.plan import Plan, make_plan
from reinforcement_learning.plan_advice import advice
from reinforcement_learning.plan_values import GIB, PUBLISHED_STEPS, Assumptions
from reinforcement_learning.recipe import load_recipe

Row = tuple[str, str]


def main(arguments: list[str] | None = None, *, prog: str = "deepeyes plan") -> None:
    """Print the plan; what it warns of is for the reader, the dry run refuses."""
    parser = CommandParser(
        prog=prog,
        description="What a training recipe will ask of the machines.",
        examples=("deepeyes plan qwen2_5_vl_7b", "deepeyes plan qwen2_5_vl_7b --gpus 8 --gpu-gib 139 agent.max_turns=4"),
    )
    add_recipe(parser, "reinforcement_learning/recipes (or cold_start/recipes)")
    parser.add_argument("--gpus", type=int, help="plan for this many GPUs instead of the recipe's, in nodes of 8")
    parser.add_argument("--gpu-gib", type=float, default=79.0, help="memory of one GPU in GiB; an 80 GB card has 79")
    parser.add_argument("--rows", type=int, help="of the training data; by default those of the files that are there")
    parser.add_argument("--overlay", action="append", default=[], help="a part put over the recipe; may be repeated")
    parser.add_argument("--cold-start", action="store_true", help="a recipe of cold_start: memory and checkpoints")
    add_json_option(parser)
    options = parser.parse_intermixed_args(arguments)
    take_recipe(parser, options)
    with program(prog):
        sections, warnings = _planned(options)
    if options.json:
        told = {title: {name: value.strip() for name, value in rows} for title, rows in sections.items()}
        print_json({**told, "notes": warnings})
        return
    for title, rows in sections.items():
        if rows:
            print(f"\n{title}")
            for name, value in rows:
                print(f"  {name:<44} {value}")
    print()
    for warning in warnings:
        print(f"note: {warning}")


def _planned(options: argparse.Namespace) -> tuple[dict[str, list[Row]], list[str]]:
    """What to print, by title, and what to warn of."""
    assume = replace(Assumptions(), gpu_bytes=int(options.gpu_gib * GIB), rows=options.rows)
    if options.cold_start:
        from deepeyes.plan_cold_start import sections

        return sections(options.recipe, tuple(options.overrides), options.gpus or 8, assume)
    recipe = load_recipe(options.recipe, options.overrides, overlays=options.overlay)
    plan = make_plan(recipe, gpus=options.gpus, assume=assume)
    told = {
        "batch": list(_batch(plan)),
        "one GPU": list(_gpu(plan, assume)),
        "one node": list(_host(plan)),
        "disk": list(_disk(plan)),
        "services": list(_services(plan)),
    }
    return told, list(advice(plan, recipe, assume))


def _gib(size: float) -> str:
    return f"{size / GIB:8.1f} GiB"


def gigabytes(size: float) -> str:
    """Decimal gigabytes, as disks are sold."""
    return f"{size / 1e9:8.1f} GB" if size >= 1e8 else f"{size / 1e6:8.1f} MB"


def _count(number: float) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:,.2f} million"


def _batch(plan: Plan) -> Iterator[Row]:
    layout = plan.layout
    yield "model", f"{plan.shape.name}, {_count(plan.shape.parameters)} parameters"
    yield "GPUs", f"{layout.nodes} x {layout.gpus_per_node}, states over {layout.shards}, {layout.replicas} vLLM replica(s)"
    yield "episodes a step", f"{plan.episodes:,}, {plan.updates} update(s)"
    yield "tokens a step", f"{_count(plan.episodes * plan.episode_tokens)}, about {plan.episode_tokens:,} an episode"
    if plan.steps is None:
        yield "steps", "not known: the data is not here"
    else:
        of = "" if plan.rows is None else f", {plan.rows:,} rows, {plan.steps_per_epoch:,} an epoch"
        yield "steps", f"{plan.steps:,}{of}"


def _gpu(plan: Plan, assume: Assumptions) -> Iterator[Row]:
    gpu = plan.gpu
    if gpu is None:
        return
    yield "training: weights", _gib(gpu.weights)
    yield "training: gradients", _gib(gpu.gradients)
    yield "training: optimizer", _gib(gpu.optimizer)
    yield f"training: activations of {plan.token_budget:,} tokens", _gib(gpu.activations)
    yield "training: layers gathered", _gib(gpu.gathered)
    if gpu.stepping > gpu.activations + gpu.gathered:
        yield "training: instead of both, the optimizer's step", _gib(gpu.stepping)
    if gpu.vllm_awake_in_training:
        yield "training: vLLM, which does not sleep", _gib(gpu.vllm_awake_in_training)
    yield "training, together", f"{_gib(gpu.training)} of {assume.gpu_bytes / GIB:.0f}"
    yield "rollouts: states that stay", _gib(gpu.kept_while_rolling_out)
    yield "rollouts: vLLM", _gib(gpu.vllm)
    yield "rollouts, together", f"{_gib(gpu.rolling_out)} of {assume.gpu_bytes / GIB:.0f}"
    yield "vLLM: weights, working memory", f"{_gib(gpu.vllm_weights)}, {gpu.vllm_working / GIB:.1f} GiB"
    fit = gpu.kv_tokens / plan.episode_tokens
    yield (
        "vLLM: KV cache of a replica",
        f"{gpu.kv_tokens:,} tokens: {fit:.0f} mean or {gpu.kv_tokens / plan.longest_tokens:.0f} longest episodes",
    )
    yield "vLLM: episodes in flight at a replica", f"{plan.episodes / plan.layout.replicas:.0f}"


def _host(plan: Plan) -> Iterator[Row]:
    for name, size in plan.host_bytes.items():
        yield name, _gib(size)
    if plan.host_bytes:
        yield "together", f"{_gib(sum(plan.host_bytes.values()))}, and Ray's object store (30 % of the memory)"


def _disk(plan: Plan) -> Iterator[Row]:
    disk = plan.disk
    yield "a checkpoint", gigabytes(disk.checkpoint)
    yield "checkpoints kept, and one being saved", gigabytes(disk.checkpoints)
    yield "the model exported", gigabytes(disk.export)
    yield "recordings of a step", gigabytes(disk.recording_step)
    yield f"recordings of {plan.steps or PUBLISHED_STEPS:,} steps", gigabytes(disk.recordings)
    yield "the questions' images", gigabytes(disk.images)
    yield "images of the last steps, as shown", gigabytes(disk.step_images)
    yield "together", gigabytes(disk.total)


def _services(plan: Plan) -> Iterator[Row]:
    nodes = plan.layout.nodes
    if plan.sessions:
        yield "sandbox sessions at once", f"{plan.sessions:,}, {-(-plan.sessions // nodes):,} a node"
        yield "cells, core seconds a step", f"{plan.cell_core_s:,.0f}, {plan.cell_core_s / nodes:,.0f} a node"
    if plan.judge_requests:
        yield "judge, at most", f"{plan.judge_requests:,} requests and {plan.judge_tokens / 1e6:.1f} million tokens a step"
    else:
        yield "judge", "rules alone"
