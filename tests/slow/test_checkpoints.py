"""verl's own checkpoint manager under our rules: killed while saving, sharded over ranks, exported."""

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from reinforcement_learning.checkpoints import Checkpoints
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENV = (
    os.environ
    | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VERL_PLATFORM": "cpu"}
    | {"VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin"}
)


def shards(*arguments):
    command = [sys.executable, "-W", "ignore", "-m", "tests.shards", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def line_of(process, timeout_s=120.0):
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        raise TimeoutError("the saver says nothing")
    return process.stdout.readline().decode().strip()


def test_verls_checkpoints_killed_twenty_times_at_random_moments_are_always_resumed_from(toy, tmp_path):
    draw = random.Random(3)
    saved = rounds = 0
    command = [sys.executable, "-W", "ignore", "-m", "tests.shards", "loop", str(toy / "models/base"), str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:  # fmt: skip
        assert line_of(process) == "ready"
        for _ in range(20):
            process.stdin.write(b"go\n")
            child = int(re.fullmatch(r"child (\d+)", line_of(process))[1])
            while not (said := line_of(process)).startswith("resumed"):
                assert not said.startswith("broken"), said
            resumed = int(said.split()[1])
            # What was said to be saved is there; the kill may have come after a save and before its word.
            assert resumed in (saved, saved + 1), (resumed, saved)
            saved = resumed
            if draw.random() < 0.5:
                said = line_of(process)
                assert said.startswith("saved"), said
                saved = int(said.split()[1])
            time.sleep(draw.random() * 0.6)
            os.kill(child, signal.SIGKILL)
            while (said := line_of(process)) != "gone":
                if said.startswith("saved"):
                    saved = int(said.split()[1])
                assert not said.startswith("broken"), said
            rounds += 1
        process.stdin.close()
    assert rounds == 20
    assert saved >= 5
    assert Checkpoints(tmp_path).newest().step in (saved, saved + 1)


def tiny_model(toy, tmp_path, *, tied):
    from deepeyes.quickstart.tiny_model import make_tiny_model

    if tied:
        return toy / "models/base"
    conversations = json.loads((toy / "data/sft.json").read_text())
    make_tiny_model([m["content"] for c in conversations for m in c["messages"]], tmp_path / "untied", tied=False)
    return tmp_path / "untied"


def export(*arguments):
    command = [sys.executable, "-W", "ignore", "-m", "deepeyes.cli", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize(
    ("ranks", "fsdp_size", "tied"), [(1, 0, True), (2, 0, False), (4, 2, True)], ids=["one", "two, untied", "two by two"]
)
def test_an_exported_model_has_the_weights_that_the_ranks_held(toy, tmp_path, ranks, fsdp_size, tied):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = tiny_model(toy, tmp_path, tied=tied)
    shards("save", model, tmp_path / "run/checkpoints", ranks, fsdp_size)
    result = export(tmp_path / "run", "--out", tmp_path / "model", "--dtype", "float32")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert "of step 2" in result.stdout
    loaded, told = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", output_loading_info=True, dtype="float32")
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    expected = torch.load(tmp_path / "run/checkpoints/expected.pt")
    weights = loaded.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    AutoProcessor.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "model.partial").exists()


def test_an_exported_adapter_is_part_of_the_weights(toy, tmp_path):
    import torch
    from transformers import AutoModelForImageTextToText

    model = toy / "models/base"
    shards("save", model, tmp_path / "run/checkpoints", 1, "lora")
    result = export(tmp_path / "run", "--out", tmp_path / "model", "--dtype", "float32")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    expected = torch.load(tmp_path / "run/checkpoints/expected.pt")
    weights = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32).state_dict()
    changed = 0
    for name, value in AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).state_dict().items():
        adapted = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{adapted}.lora_A.default.weight" in expected:
            down, up = (expected[f"{adapted}.lora_{part}.default.weight"] for part in "AB")
            value = value + 2.0 * (up @ down)
            changed += 1
        assert torch.allclose(weights[name], value, atol=1e-6), name
    assert changed >= 8


def test_an_export_without_a_checkpoint_a_step_or_a_free_folder_says_what_there_is(tmp_path):
    nothing = export(tmp_path, "--out", tmp_path / "m")
    assert nothing.returncode != 0
    assert "no complete checkpoint" in nothing.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert "not empty" in export(tmp_path, "--out", tmp_path / "full").stderr
