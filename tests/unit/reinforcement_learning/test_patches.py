"""Each patch: upstream still has the bug (else remove the patch), and the patch mends it."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # importing verl takes ten seconds


def run(code: str, *, plugin: bool) -> subprocess.CompletedProcess:
    """Patches change modules for good, so each look at them has a process of its own."""
    plugins = "reinforcement_learning.verl_adapter.plugin" if plugin else ""
    env = os.environ | {"VERL_PLATFORM": "cpu", "PYTHONPATH": str(ROOT), "VERL_USE_EXTERNAL_MODULES": plugins}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, timeout=110, check=False
    )


POSITION_IDS = """
import torch
import verl, verl.utils.tensordict_utils as tu
from tensordict import TensorDict
rows = [torch.arange(4 * 5).reshape(4, 5) + 100 * n for n in range(2)]
data = TensorDict({"position_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=[2])
tu.maybe_fix_3d_position_ids(data)
parts = [part.tolist() for part in data["position_ids"].unbind()]
assert parts == [row.tolist() for row in rows], parts
"""


def test_position_ids_of_equally_long_samples_survive_packing():
    assert run(POSITION_IDS, plugin=False).returncode != 0, "upstream is mended: remove _position_ids_of_equal_length"
    result = run(POSITION_IDS, plugin=True)
    assert result.returncode == 0, result.stderr


GLOO = """
import os, torch
import verl, verl.utils.distributed as distributed
os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
torch.distributed.init_process_group = lambda **options: print("BACKEND", options.get("backend"))
distributed.initialize_global_process_group_ray()
"""


def test_the_process_group_of_a_cpu_names_the_cpu_once():
    env = "import os; os.environ['VERL_USE_EXTERNAL_MODULES'] = 'reinforcement_learning.verl_adapter.cpu_platform'\n"
    assert "cpu:gloo,cpu:" in run(env + GLOO, plugin=False).stdout, "upstream is mended: remove _gloo_once"
    assert "BACKEND cpu:gloo\n" in run(GLOO, plugin=True).stdout


EMBEDS = """
import sys, torch, verl
from transformers import Qwen2_5_VLForConditionalGeneration
import verl.models.transformers.qwen2_vl as qwen2_vl
if sys.argv[1:] == ["patched"]:
    from reinforcement_learning.verl_adapter import patches
    patches.apply_to_model()
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL).model
embeddings, _ = qwen2_vl._get_input_embeds(model, torch.tensor([[5, 6, 7]]))
assert torch.equal(embeddings, model.get_input_embeddings()(torch.tensor([[5, 6, 7]])))
"""


def test_a_batch_without_images_reaches_the_model(toy):
    code = EMBEDS.replace("MODEL", repr(str(toy / "models/base")))
    assert run(code, plugin=True).returncode != 0, "upstream is mended: remove apply_to_model"
    result = run(code.replace('sys.argv[1:] == ["patched"]', "True"), plugin=True)
    assert result.returncode == 0, result.stderr


VALIDATION = """
import verl
import transformers.processing_utils as processing_utils
calls = []
original = processing_utils.validate_typed_dict
processing_utils.validate_typed_dict = lambda schema, data: calls.append(original(schema, data))
from transformers import AutoProcessor
from PIL import Image
processor = AutoProcessor.from_pretrained(MODEL)
ids = processor(text=["<|vision_start|><|image_pad|><|vision_end|>x"], images=[Image.new("RGB", (56, 56))])["input_ids"]
print("CALLS", len(calls), original.__module__, ids)
"""


def test_skipping_the_processors_argument_check_changes_no_token(toy):
    code = VALIDATION.replace("MODEL", repr(str(toy / "models/base")))
    plain, patched = run(code, plugin=False).stdout, run(code, plugin=True).stdout
    assert "CALLS 0" not in plain, "transformers no longer validates at every call: remove _processor_validation"
    assert "huggingface_hub" in plain.split("CALLS")[1]
    assert "verl_adapter.patches" in patched.split("CALLS")[1]
    assert plain.split("[[")[1] == patched.split("[[")[1]
