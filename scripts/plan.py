"""`deepeyes plan`: what a recipe will ask of the machines, as text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from reinforcement_learning.plan import Plan, make_plan
from reinforcement_learning.plan_advice import advice
from reinforcement_learning.plan_values import GIB, PUBLISHED_STEPS, Assumptions
from reinforcement_learning.recipe import load_recipe

Row = tuple[str, str]


def report(options: argparse.Namespace) -> int:
    """Print the plan.

    Returns:
        0: warnings are for the reader, the dry run refuses.
    """
    assume = replace(Assumptions(), gpu_bytes=int(options.gpu_gib * GIB), rows=options.rows)
    if options.cold_start:
        from scripts.plan_cold_start import sections as cold_start_sections

        sections, warnings = cold_start_sections(options.recipe, tuple(options.overrides), options.gpus or 8, assume)
    else:
        recipe = load_recipe(options.recipe, options.overrides)
        plan = make_plan(recipe, gpus=options.gpus, assume=assume)
        sections = {
            "batch": list(_batch(plan)),
            "one GPU": list(_gpu(plan, assume)),
            "one node": list(_host(plan)),
            "disk": list(_disk(plan)),
            "services": list(_services(plan)),
        }
        warnings = advice(plan, recipe, assume)
    for title, rows in sections.items():
        if rows:
            print(f"\n{title}")
            for name, value in rows:
                print(f"  {name:<44} {value}")
    print()
    for warning in warnings:
        print(f"note: {warning}")
    return 0


def _gib(size: float) -> str:
    return f"{size / GIB:8.1f} GiB"


def gigabytes(size: float) -> str:
    """As disks are sold."""
    return f"{size / 1e9:8.1f} GB" if size >= 1e8 else f"{size / 1e6:8.1f} MB"


def _batch(plan: Plan) -> Iterator[Row]:
    layout = plan.layout
    yield "model", f"{plan.shape.name}, {plan.shape.parameters / 1e9:.2f} billion parameters"
    yield "GPUs", f"{layout.nodes} x {layout.gpus_per_node}, states over {layout.shards}, {layout.replicas} vLLM replica(s)"
    yield "episodes a step", f"{plan.episodes:,}, {plan.updates} update(s)"
    yield "tokens a step", f"{plan.episodes * plan.episode_tokens / 1e6:,.1f} million, {plan.episode_tokens:,} an episode"
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
