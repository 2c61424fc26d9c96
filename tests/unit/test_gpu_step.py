"""The benchmark of a training step: what it makes up is what a rank would get, and its figures are those the plan is held against."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu_step import batches, image_grids, write_model
from benchmarks.memory_peak import at_peak
from reinforcement_learning.model_shape import KNOWN
from reinforcement_learning.plan import make_plan
from reinforcement_learning.plan_values import GIB, VerlValues
from reinforcement_learning.recipe import load_recipe
from tests.conftest import ROOT

ACTOR, MODEL = "verl.actor_rollout_ref.actor", "verl.actor_rollout_ref.model"


@pytest.mark.parametrize(
    ("recipe", "overrides", "overlays", "measured_gib"),
    [
        ("qwen2_5_vl_7b_1x8", [], [], 41.36),
        ("qwen2_5_vl_7b", [], [], 41.44),
        ("qwen2_5_vl_7b_1x8", [f"{ACTOR}.ppo_max_token_len_per_gpu=49152"], [], 52.29),
        ("qwen2_5_vl_7b_1x8", [f"{MODEL}.use_fused_kernels=false"], [], 40.72),
        ("qwen2_5_vl_3b_1gpu", [], [], 27.55),
        ("qwen2_5_vl_32b", [], [], 44.76),
    ],
)
def test_the_plan_is_within_3_percent_of_what_was_measured_on_a_gpu(recipe, overrides, overlays, measured_gib):
    # docs/results.md; memory of tensors when it is fullest, with the gradients of an earlier micro-batch there.
    plan = make_plan(load_recipe(recipe, overrides, overlays=overlays))
    assert plan.gpu.training / GIB == pytest.approx(measured_gib, rel=0.03)


@pytest.mark.parametrize(
    ("recipe", "states_gib", "step_gib"), [("qwen2_5_vl_7b_1x8", 15.52, 19.38), ("qwen2_5_vl_32b", 7.85, 9.80)]
)
def test_states_and_the_optimizers_step_are_as_measured_on_a_gpu(recipe, states_gib, step_gib):
    gpu = make_plan(load_recipe(recipe)).gpu
    states = gpu.weights + gpu.gradients + gpu.optimizer
    assert states / GIB == pytest.approx(states_gib, rel=0.01)
    assert (states + gpu.stepping) / GIB == pytest.approx(step_gib, rel=0.01)


def test_one_gpu_for_a_whole_7b_is_filled_by_the_optimizers_step():
    gpu = make_plan(load_recipe("qwen2_5_vl_7b"), gpus=1).gpu
    assert gpu.stepping > gpu.activations + gpu.gathered
    assert gpu.training == gpu.weights + gpu.gradients + gpu.optimizer + gpu.stepping


@pytest.mark.parametrize("size", sorted(KNOWN["qwen2_5_vl"]))
def test_the_published_configuration_has_the_parameters_that_the_plan_counts(size, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    write_model(tmp_path / "model", KNOWN["qwen2_5_vl"][size], tiny=False)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(tmp_path / "model"))
    assert sum(parameter.numel() for parameter in model.parameters()) == KNOWN["qwen2_5_vl"][size].parameters


@given(st.integers(1, 20_000), st.integers(1, 1500))
def test_images_fill_their_share_of_a_row_but_for_less_than_a_row_of_the_last(tokens, largest):
    grids = image_grids(tokens, largest_tokens=largest)
    assert all(rows > 0 and columns > 0 and rows * columns <= largest for rows, columns in grids)
    assert tokens - 16 < sum(rows * columns for rows, columns in grids) <= tokens


def test_batches_fill_the_token_budget_with_mean_episodes_twice():
    recipe = load_recipe("qwen2_5_vl_7b_1x8")
    plan = make_plan(recipe)
    found = batches(plan, VerlValues(recipe), tiny=False)
    assert sum(found["update"]) == pytest.approx(2 * 32_768, rel=0.01)
    assert found["update"][0] == pytest.approx(plan.episode_tokens, rel=0.1)
    assert found["longest"] == [24_576, 24_576]
    assert sum(found["log_prob"]) == pytest.approx(65_536, rel=0.01)


def test_without_flash_attn_a_micro_batch_is_one_episode():
    recipe = load_recipe("qwen2_5_vl_7b_1x8", overlays=["_no_flash_attn"])
    found = batches(make_plan(recipe), VerlValues(recipe), tiny=False)
    assert [len(rows) for rows in found.values()] == [2, 2, 1]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 100)), max_size=60))
def test_the_fullest_moment_is_found_in_any_history(drawn):
    events, held, most = [], {}, 0
    for allocates, address, size in drawn:
        if allocates and address not in held:
            held[address] = size
            events.append({"action": "alloc", "addr": address, "size": size, "frames": []})
        elif not allocates and address in held:
            events.append({"action": "free_requested", "addr": address, "size": held.pop(address), "frames": []})
            events.append({"action": "free_completed", "addr": address, "size": 0, "frames": []})
        most = max(most, sum(held.values()))
    assert sum(at_peak(events).values()) == most


def test_what_was_there_before_and_is_freed_lowers_the_peak():
    frames = [
        {"filename": "/lib/torch/nn/modules/linear.py", "line": 1, "name": "forward"},
        {"filename": "/lib/transformers/models/qwen.py", "line": 7, "name": "mlp"},
    ]
    events = [
        {"action": "alloc", "addr": 1, "size": 10, "frames": []},
        {"action": "free_requested", "addr": 9, "size": 50, "frames": []},
        {"action": "alloc", "addr": 2, "size": 70, "frames": frames},
    ]
    assert at_peak(events) == {"qwen.py:7 mlp": 70, "backward, without Python": 10, "earlier, freed by then": -50}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("recipe", "gpus"), [("qwen2_5_vl_7b", 32), ("qwen2_5_vl_3b_1gpu", 1)])
def test_the_tiny_model_goes_through_every_batch_on_a_cpu(recipe, gpus, tmp_path):
    # Batches by tokens, as the recipes have them with flash-attn; the overlay would take rows one by one.
    dynamic = [f"{ACTOR}.use_dynamic_bsz=true", "verl.actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true"]
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_step", recipe, "--tiny", "--out", str(out), *dynamic]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    first, built, *rest = [json.loads(line) for line in out.read_text().splitlines()]
    assert (first["gpus"], built["what"]) == (gpus, "built")
    assert [(row["what"], row["time"]) for row in rest] == [
        (what, number) for what in ("update", "longest", "log_prob") for number in (1, 2)
    ]
    assert [row["tokens"] for row in rest] == [256, 256, 256, 256, 256, 256]
    for row in rest[:4]:
        assert 0.0 < row["grad_norm"] < 1e4, "a step with gradients that are not finite would be skipped"
    assert "plan:" in result.stdout
