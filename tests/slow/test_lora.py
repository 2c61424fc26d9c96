"""The path of qwen2_5_vl_3b_1gpu on a CPU: adapters are trained, and vLLM gets weights into which they are merged."""

import json
import shutil

import pytest
import yaml

from data.prepare.command import main as prepare
from reinforcement_learning.plan import checkpoint_bytes
from reinforcement_learning.recipe import RECIPES, load_recipe
from tests.slow.conftest import train_tiny
from tests.unit.data.test_look import BAD_ROWS, rl_row, write_rl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LORA = yaml.safe_load((RECIPES / "qwen2_5_vl_3b_1gpu.yaml").read_text())["verl"]["actor_rollout_ref"]["model"]


@pytest.fixture(scope="module")
def prepared(quickstart, tmp_path_factory):
    """The quickstart's rows beside broken ones of other schemas, prepared: the trainer, which stops at a bad row, reads the set."""
    directory = tmp_path_factory.mktemp("prepared")
    source = directory / "in"
    source.mkdir()
    shutil.copy(quickstart.directory / "data/rl_train.parquet", source / "mark.parquet")
    for number, changes in enumerate(BAD_ROWS.values()):
        write_rl(source / f"bad_{number}.parquet", [rl_row(**changes)])
    prepare(["rl", str(source), "--out", str(directory / "store")])
    manifest = json.loads((directory / "store/sets/rl/manifest.json").read_text())
    assert sum(one["number"] for one in manifest["counts"]["dropped"].values()) == len(BAD_ROWS)
    return directory / "store/sets/rl/rl.parquet"


@pytest.fixture(scope="module")
def run(quickstart, prepared, sandbox_url, tmp_path_factory):
    return train_tiny(
        tmp_path_factory.mktemp("lora") / "run", sandbox_url,
        f"run.model={quickstart.directory / 'models/sft'}",
        f"run.train_files=['{prepared}']", "run.on_bad_rows=stop",
        f"verl.actor_rollout_ref.model={json.dumps(LORA)}",
        # Large enough that vLLM without the adapters would be another model.
        "verl.actor_rollout_ref.actor.optim={lr: 3.0e-3, lr_warmup_steps: 0, weight_decay: 0.0}",
        "verl.trainer.total_training_steps=3", "verl.trainer.save_freq=3",
    )  # fmt: skip


def test_vllm_samples_from_the_merged_weights(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        # verl hands merged weights over in bfloat16, whatever the trainer computes in.
        assert row["training/rollout_actor_probs_pearson_corr"] > 0.999


def test_adapters_of_the_language_model_are_trained_and_nothing_else(run, quickstart):
    import torch
    from safetensors.torch import load_file

    saved = torch.load(run / "checkpoints/global_step_3/actor/model_world_size_1_rank_0.pt", weights_only=False)
    weights = {name: getattr(value, "_local_tensor", value) for name, value in saved.items()}
    second = [name for name in weights if "lora_B" in name]
    assert second
    assert not [name for name in second if "visual" in name]
    assert sum(float(weights[name].abs().sum()) for name in second) > 0
    before = load_file(quickstart.directory / "models/sft/model.safetensors")
    kept = [name for name in weights if name.endswith("mlp.up_proj.base_layer.weight")]
    assert kept
    old = [value for name, value in before.items() if name.endswith("mlp.up_proj.weight") and "visual" not in name]
    for name in kept:
        assert any(value.shape == weights[name].shape and torch.equal(value.float(), weights[name].float()) for value in old)


def test_a_checkpoint_with_adapters_is_as_large_as_planned(run, quickstart):
    recipe = load_recipe(
        "tiny_cpu", [f"run.model={quickstart.directory / 'models/sft'}", f"verl.actor_rollout_ref.model={json.dumps(LORA)}"]
    )
    written = sum(file.stat().st_size for file in (run / "checkpoints/global_step_3").rglob("*") if file.is_file())
    assert written == pytest.approx(checkpoint_bytes(recipe), rel=0.1)


def test_the_export_is_a_plain_model_with_the_adapters_merged(run, quickstart, tmp_path):
    from safetensors.torch import load_file

    from reinforcement_learning.export import export

    export(run, tmp_path / "model", dtype="float32")
    merged = load_file(tmp_path / "model/model.safetensors")
    base = load_file(quickstart.directory / "models/sft/model.safetensors")
    assert merged.keys() == base.keys()
    changed = {name for name in base if (merged[name].float() - base[name].float()).abs().max() > 1e-6}
    assert changed
    assert not [name for name in changed if "visual" in name or "norm" in name or "embed" in name]
