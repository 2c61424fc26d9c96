"""GRPO of a model with experts: vLLM samples from what is trained, and what is saved is served."""

import json
import os
import subprocess
import sys

import pytest

from reinforcement_learning.export import export
from tests.conftest import ROOT
from tests.slow.conftest import train_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def run(tiny, toy, sandbox_url, tmp_path_factory):
    return train_tiny(
        tmp_path_factory.mktemp("experts") / "run", sandbox_url,
        f"run.model={tiny('qwen3_vl_moe', tied=False)}", f"run.train_files=['{toy / 'data/rl_train.parquet'}']",
        # A random model earns nothing, so its advantages are zero: the decay moves each weight by 3 % a step.
        "verl.actor_rollout_ref.actor.optim={lr: 1.0e-3, lr_warmup_steps: 0, weight_decay: 30.0}",
        "verl.trainer.total_training_steps=2", "verl.trainer.save_freq=2",
    )  # fmt: skip


def test_rollout_and_training_agree_at_the_first_step_and_after_an_update(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["training/rollout_actor_probs_pearson_corr"] > 0.9999


def test_the_export_holds_what_was_trained_and_vllm_computes_with_it_what_hugging_faces_model_does(run, tiny, tmp_path):
    from safetensors.torch import load_file

    export(run, tmp_path / "model", dtype="float32")
    before = load_file(tiny("qwen3_vl_moe", tied=False) / "model.safetensors")
    after = load_file(tmp_path / "model/model.safetensors")
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    moved = {name for name, value in before.items() if (after[name] - value).abs().max() > 1e-2 * value.abs().max()}
    assert {name for name in before if ".mlp.experts." in name} <= moved
    command = [sys.executable, "-W", "ignore", "-m", "tests.vllm_beside_hf", str(tmp_path / "model")]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    assert json.loads(result.stdout.splitlines()[-1])["apart"] < 1e-4
