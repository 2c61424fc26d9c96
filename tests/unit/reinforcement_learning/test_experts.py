"""Experts are written as published, which vLLM reads; transformers reads them either way; and vLLM follows the trainer's."""

import json
import os
import subprocess
import sys

import pytest

from reinforcement_learning.experts import as_published, have_experts
from reinforcement_learning.export import export
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DOWN = "model.language_model.layers.0.mlp.experts.down_proj"


def tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def told_by(program, model):
    """What a program that compares on this model prints last."""
    command = [sys.executable, "-W", "ignore", "-m", program, str(model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """The tiny model with experts as transformers 5 saves it, LLaMA-Factory with it."""
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("experts") / "saved"
    AutoModelForImageTextToText.from_pretrained(tiny("qwen3_vl_moe", tied=False, loud=True)).save_pretrained(folder)
    return folder


def test_an_export_turns_the_experts_of_a_model_that_transformers_saved_and_changes_nothing_else(tiny, saved, tmp_path):
    import torch

    published, turned = tensors(tiny("qwen3_vl_moe", tied=False, loud=True)), tensors(saved)
    assert published[DOWN].shape == (8, 192, 128)
    assert turned[DOWN].shape == (8, 128, 192), "transformers saves what is published: remove experts.py"
    export(saved, tmp_path / "again")
    again = tensors(tmp_path / "again")
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], value) for name, value in published.items())
    config = json.loads((saved / "config.json").read_text())
    assert have_experts(config)
    assert all(torch.equal(value, published[name]) for name, value in as_published(published, config).items())


def test_both_ways_are_the_same_model_to_transformers(tiny, saved):
    import torch
    from transformers import AutoModelForImageTextToText

    folders = (saved, tiny("qwen3_vl_moe", tied=False, loud=True))
    one, other = (AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in folders)
    assert all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("base", ["qwen3_vl", "qwen3_vl_moe"])
def test_vllm_computes_with_images_what_hugging_faces_model_does(tiny, base):
    facts = told_by("tests.vllm_beside_hf", tiny(base, tied=False, loud=True))
    assert facts["tokens"] == facts["expected_tokens"]
    assert facts["compared"] > 300
    assert facts["apart"] < 1e-4


@pytest.mark.parametrize("tied", [True, False])
def test_vllm_computes_what_the_trainer_does_after_each_hand_over_of_weights(tiny, tied):
    facts = told_by("tests.vllm_after_a_sync", tiny("qwen3_vl_moe", tied=tied, loud=True))
    for hand_over in ("by_us", "moved_by_us"):
        assert facts[hand_over]["apart"] < 1e-4
        assert facts[hand_over]["correlation"] > 0.9999
    assert facts["dummy"]["apart"] > 1
    assert facts["moved"]["apart"] > 1
    assert facts["by_vllm"]["apart"] > 1, "vLLM packs experts again by itself now: remove forget_expert_kernels"
