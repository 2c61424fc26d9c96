"""verl's own engine, real ranks over gloo: what the 7B and 32B do and the tied tiny model never did."""

import json
import os
import subprocess
import sys

import pytest

from deepeyes.quickstart.tiny_model import untie
from serving.processes import free_port
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ranks(directory, count, *arguments):
    """What each of `count` ranks found."""
    shared = {
        "PYTHONPATH": str(ROOT),
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "SFT_MODEL": "unused",
    }
    logs = [directory / f"rank{rank}.log" for rank in range(count)]
    processes = []
    for rank, log in enumerate(logs):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "FACTS": str(directory / f"{rank}.json")}
        with log.open("wb") as output:
            command = [sys.executable, "-W", "ignore", "-m", "tests.engine_rank", *map(str, arguments)]
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env=os.environ | shared | own, stdout=output, stderr=subprocess.STDOUT)
            )
    try:
        codes = [process.wait(240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join(log.read_text()[-3000:] for log in logs)
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def untied(toy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("untied") / "model"
    untie(toy / "models/base", directory)
    return directory


def test_ranks_after_the_first_read_an_untied_model_on_the_meta_device_and_end_with_the_same_weights(untied, tmp_path):
    # accelerate 1.11.0: TypeError: Parameter.__new__() got an unexpected keyword argument '_is_hf_initialized'
    first, second = ranks(tmp_path, 2, "tiny_cpu", untied)
    assert not first["tied"]
    assert (first["devices"], second["devices"]) == (["cpu"], ["meta"])
    for rank in (first, second):
        assert rank["parameters"] == rank["buffers"] == 0.0
        assert rank["log_probs"] < 1e-5
        assert rank["gradients"] > 0.9999


def test_fused_kernels_read_the_whole_head_of_an_untied_model_on_every_rank(untied, tmp_path):
    # Unpatched: RuntimeError: aten.mm.default got mixed torch.Tensor and DTensor
    for rank in ranks(tmp_path, 2, "tiny_cpu", untied, "verl.actor_rollout_ref.model.use_fused_kernels=true"):
        assert rank["fused"]
        assert rank["log_probs"] < 1e-5
        assert rank["gradients"] > 0.9999


def test_the_7b_recipe_without_flash_attn_runs_forward_with_torchs_own_attention(untied, tmp_path):
    (facts,) = ranks(tmp_path, 1, "qwen2_5_vl_7b", untied, "_no_flash_attn")
    assert (facts["attention"], facts["remove_padding"], facts["fused"]) == ("sdpa", False, True)
    assert facts["log_probs"] < 0.1, "bfloat16 against float32"
    assert facts["gradients"] > 0.99


@pytest.mark.parametrize(("base", "count"), [("qwen3_vl", 2), ("qwen3_vl_moe", 1)])
def test_a_qwen3_vl_with_images_computes_what_hugging_faces_model_does(tiny, tmp_path, base, count):
    """Deepstack, interleaved M-RoPE and experts, split by FSDP; untied as the 8B and the 30B-A3B."""
    for facts in ranks(tmp_path, count, "tiny_cpu", tiny(base, tied=False, loud=True)):
        assert facts["parameters"] == facts["buffers"] == 0.0
        assert facts["log_probs"] < 1e-4
        assert facts["gradients"] > 0.9999


def test_the_untied_copy_of_a_tied_model_computes_the_same(toy, untied):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    tied, copy = (Qwen2_5_VLForConditionalGeneration.from_pretrained(path) for path in (toy / "models/base", untied))
    assert copy.lm_head.weight is not copy.model.language_model.embed_tokens.weight
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert torch.equal(tied(input_ids=ids).logits, copy(input_ids=ids).logits)
