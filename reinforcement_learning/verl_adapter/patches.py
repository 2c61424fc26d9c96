"""Everything that must be changed in other packages, with the reason. Nothing else of ours patches anything.

`apply_early` runs in every process through VERL_USE_EXTERNAL_MODULES, `apply_to_model` in those that hold a model. Each
patch has a test in tests/unit/reinforcement_learning/test_patches.py that fails once upstream no longer needs it.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch


def apply_early() -> None:
    """Patches that need no model."""
    _position_ids_of_equal_length()
    _processor_validation()
    if os.environ.get("VERL_PLATFORM") == "cpu":
        _gloo_once()


def _position_ids_of_equal_length() -> None:
    """verl 0.9.1: M-RoPE position ids of a rank whose samples all have one length are packed along the wrong dimension.

    Symptom: "split_with_sizes expects split_sizes to sum exactly to L … got [4, 4, …]". Not specific to a CPU.
    """
    import verl.utils.tensordict_utils as tensordict_utils

    def maybe_fix_3d_position_ids(data: Any) -> None:
        if "position_ids" not in data.keys():  # noqa: SIM118 - a TensorDict
            return
        position_ids = data["position_ids"]
        if not (position_ids.is_nested and position_ids.dim() == 3):
            return
        values, offsets = position_ids.values(), position_ids.offsets()
        total = int(offsets[-1])
        if values.shape[1] != total and values.shape[0] == total:
            samples = list(values.split(offsets.diff().tolist(), dim=0))
            data["position_ids"] = tensordict_utils.nested_tensor_from_tensor_list(samples, ragged_idx=2)
        else:
            position_ids._ragged_idx = 2

    tensordict_utils.maybe_fix_3d_position_ids = maybe_fix_3d_position_ids


def _processor_validation() -> None:
    """transformers 5.5.4 builds a new validating dataclass at every processor call, 5.5 of 8.3 ms; verl calls it several
    times a trajectory. Only the check of argument names is lost.
    """
    import transformers.processing_utils

    transformers.processing_utils.validate_typed_dict = lambda schema, data: None


def _gloo_once() -> None:
    """verl 0.9.1 asks for "cpu:gloo,<device>:<backend>", which torch refuses when the device is the CPU itself."""
    import verl.utils.distributed as distributed

    distributed.initialize_global_process_group_ray = functools.partial(
        distributed.initialize_global_process_group_ray, backend="cpu:gloo"
    )


def apply_to_model() -> None:
    """Patches where a model is built."""
    _blank_image()
    _fused_head()


def _fused_head() -> None:
    """verl 0.9.1: with FSDP2, embeddings that are not tied (7B, 32B) and `use_fused_kernels`, the first forward pass ends
    with "aten.mm.default got mixed torch.Tensor and DTensor". The head is sharded as a unit of its own, which is gathered
    when its forward runs; fused kernels read its weight without running it. In the root unit it is gathered. Not specific to
    a CPU.
    """
    import verl.utils.fsdp_utils as fsdp_utils

    if getattr(fsdp_utils._select_fsdp2_wrap_targets, "patched_by_deepeyes", False):
        return
    original = fsdp_utils._select_fsdp2_wrap_targets

    def _select_fsdp2_wrap_targets(model: Any, layer_classes: Any) -> Any:
        targets = original(model, layer_classes)
        if getattr(model, "_verl_fused_kernels_backend", None) is None:
            return targets
        head = getattr(model, "lm_head", None)
        return [module for module in targets if module is not head]

    _select_fsdp2_wrap_targets.patched_by_deepeyes = True  # type: ignore[attr-defined]
    fsdp_utils._select_fsdp2_wrap_targets = _select_fsdp2_wrap_targets


def _blank_image() -> None:
    """verl 0.9.1 with transformers 5: a micro-batch without any image ends with "'BaseModelOutputWithPooling' object has no
    attribute 'mean'", because the branch that feeds a blank image forgets to unpack. Padding rows after a failed rollout
    hit it as well. Not specific to a CPU.
    """
    import verl.models.transformers.qwen2_vl as qwen2_vl

    if getattr(qwen2_vl._get_input_embeds, "patched_by_deepeyes", False):
        return
    original = qwen2_vl._get_input_embeds

    def _get_input_embeds(
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
    ) -> Any:
        if pixel_values is not None or pixel_values_videos is not None:
            return original(
                model, input_ids, attention_mask, pixel_values, pixel_values_videos, image_grid_thw, video_grid_thw
            )
        embeddings = model.get_input_embeddings()(input_ids)
        vision = model.config.vision_config
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        blank = torch.zeros((16, width), dtype=model.visual.dtype, device=embeddings.device)
        grid = torch.tensor([[1, 4, 4]], device=embeddings.device)
        features, _ = qwen2_vl.unpack_visual_output(model.visual(blank, grid_thw=grid))
        # Adds nothing, but gives the vision tower a gradient on every rank, which FSDP waits for.
        embeddings = embeddings + 0.0 * features.mean()
        return embeddings, None if attention_mask is None else attention_mask.to(embeddings.device)

    _get_input_embeds.patched_by_deepeyes = True  # type: ignore[attr-defined]
    qwen2_vl._get_input_embeds = _get_input_embeds
