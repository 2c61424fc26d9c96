"""Experts as vLLM reads them.

The published Qwen3-VL models with experts hold each expert's matrices with inputs before outputs. transformers 5 holds and
saves them the other way round; it reads both, vLLM 0.28 only what is published ("The size of tensor a must match …").
Source: transformers 5.5.4, conversion_mapping.py (`qwen3_vl_moe`); vLLM 0.28, models/qwen3_vl_moe.py
(`is_fused_checkpoint_transposed`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_GATE_UP, _DOWN = ".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"


def have_experts(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a model that this is about."""
    return config.get("model_type") == "qwen3_vl_moe"


def as_published(weights: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The weights, with experts as in the published models; what is so already stays as it is.

    Args:
        weights: Tensors by name; of experts, [experts, 2 * intermediate, hidden] or [experts, hidden, 2 * intermediate] for
            the first two matrices and [experts, hidden, intermediate] or [experts, intermediate, hidden] for the third.
        config: Content of the model's config.json.
    """
    if not have_experts(config):
        return dict(weights)
    hidden = config["text_config"]["hidden_size"]

    def turned(name: str, weight: Any) -> Any:
        axis = 1 if name.endswith(_GATE_UP) else 2 if name.endswith(_DOWN) else None
        return weight if axis is None or weight.shape[axis] == hidden else weight.transpose(1, 2).contiguous()

    return {name: turned(name, weight) for name, weight in weights.items()}


def rewrite(model: Path, target: Path) -> int:
    """Copy a model's folder, with experts as in the published models. One file of weights is in memory at a time.

    Args:
        model: A model that transformers saved, such as one of the cold start.
        target: An empty folder.

    Returns:
        How many tensors were written.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    written = 0
    for path in model.iterdir():
        if path.suffix == ".safetensors":
            weights = as_published(load_file(path), config)
            save_file(weights, target / path.name, metadata={"format": "pt"})
            written += len(weights)
        elif path.is_file():
            shutil.copy2(path, target / path.name)
    return written
