"""`deepeyes plan --cold-start`: memory and checkpoints of LLaMA-Factory with DeepSpeed's ZeRO-3."""

from __future__ import annotations

from cold_start.recipe import load_recipe
from reinforcement_learning.model_shape import ModelShape, shape_of
from reinforcement_learning.plan import layer_bytes
from reinforcement_learning.plan_values import GIB, Assumptions

Sections = dict[str, list[tuple[str, str]]]


def zero3_checkpoint_bytes(shape: ModelShape, *, frozen_vision: bool) -> int:
    """A checkpoint's size: the model in bfloat16, and of what is trained DeepSpeed's float32 copy and Adam's two moments."""
    trained = shape.text.parameters if frozen_vision else shape.parameters
    return 2 * shape.parameters + 12 * trained


def sections(recipe_name: str, overrides: tuple[str, ...], gpus: int, assume: Assumptions) -> tuple[Sections, list[str]]:
    """What to print, and what to warn of."""
    recipe = load_recipe(recipe_name, overrides).llamafactory
    shape = shape_of(str(recipe["model_name_or_path"]))
    frozen = bool(recipe.get("freeze_vision_tower"))
    trained = shape.text.parameters if frozen else shape.parameters
    zero3 = bool(recipe.get("deepspeed"))
    checkpoint = zero3_checkpoint_bytes(shape, frozen_vision=frozen) if zero3 else 4 * shape.parameters + 8 * trained
    kept = int(recipe.get("save_total_limit") or 0)
    tokens = int(recipe["cutoff_len"]) * int(recipe.get("per_device_train_batch_size") or 1)
    # Weights and gradients in bfloat16, float32 copy and two moments; all split with ZeRO-3.
    states = (2 * shape.parameters + 14 * trained) // (gpus if zero3 else 1)
    text = shape.text
    layer = sum(layer_bytes(tokens, text.hidden, text.active_intermediate, text.routed))
    activations = 2 * tokens * text.hidden * text.layers + layer
    logits = tokens * text.vocabulary * 10
    accumulated = int(recipe.get("gradient_accumulation_steps") or 1)
    batch = gpus * int(recipe.get("per_device_train_batch_size") or 1) * accumulated
    found: Sections = {
        "batch": [
            ("model", f"{shape.name}, {shape.parameters / 1e9:.2f} billion parameters, {trained / 1e9:.2f} trained"),
            ("conversations a step", f"{batch} on {gpus} GPUs"),
        ],
        "one GPU": [
            ("states", f"{states / GIB:8.1f} GiB"),
            (f"activations of {tokens:,} tokens", f"{activations / GIB:8.1f} GiB"),
            ("logits, whole", f"{logits / GIB:8.1f} GiB"),
            ("together", f"{(states + activations + logits) / GIB:8.1f} GiB of {assume.gpu_bytes / GIB:.0f}"),
        ],
        "disk": [
            ("a checkpoint", f"{checkpoint / 1e9:8.1f} GB"),
            (f"{kept} kept, and one being saved", f"{(kept + 1) * checkpoint / 1e9:8.1f} GB"),
        ],
    }
    warnings = []
    if batch != 128 and shape.parameters > 1e9:
        keeps = max(1, 128 * accumulated // batch)
        warnings.append(f"the published batch is 128 conversations; gradient_accumulation_steps={keeps} keeps it")
    if states + activations + logits > assume.gpu_bytes:
        warnings.append(
            "a conversation as long as cutoff_len does not fit on a GPU; take more GPUs, or a smaller cutoff_len"
        )
    if kept > 2:
        size = f"{(kept + 1) * checkpoint / 1e9:,.0f} GB"
        warnings.append(f"save_total_limit is {kept}: {size}; save_total_limit=2 is enough to resume")
    return found, warnings
