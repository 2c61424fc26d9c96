"""The shards that verl's FSDP engine saves, put together to a plain Hugging Face model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForImageTextToText

from reinforcement_learning.experts import as_published, have_experts

_ADAPTER_PREFIX = "base_model.model."


class UnmergedCheckpoint(ValueError):
    """The shards do not make the model that the checkpoint's configuration describes."""


def write_model(actor: Path, target: Path, dtype: str) -> int:
    """Write the model of a checkpoint with its tokenizer, processor and generation settings.

    verl's own merger (verl.model_merger) knows bfloat16 only and keeps adapters apart.

    Args:
        actor: `global_step_<N>/actor`: a shard a rank, `fsdp_config.json`, and `huggingface/` without weights.
        target: An empty folder.
        dtype: Of the written weights: `bfloat16`, `float16` or `float32`.

    Returns:
        How many tensors were written.

    Raises:
        UnmergedCheckpoint: Keys or shapes are not those of the model; they are listed.
        FileNotFoundError: A shard is missing.
    """
    kind = getattr(torch, dtype)
    weights = _merge_adapter(merged_shards(actor, kind), actor)
    config = AutoConfig.from_pretrained(actor / "huggingface")
    with init_empty_weights():
        model = AutoModelForImageTextToText.from_config(config, dtype=kind)
    model.tie_weights()
    _check_keys(model, weights, actor)
    for name in _tied(model):
        weights.pop(name, None)
    values = config.to_dict()
    # transformers would turn experts to what it holds itself.
    model.save_pretrained(target, state_dict=as_published(weights, values), save_original_format=not have_experts(values))
    written = len(weights)
    del weights, model
    for path in (actor / "huggingface").iterdir():
        if path.is_file() and not (target / path.name).exists():
            shutil.copy2(path, target / path.name)
    for path in target.glob("*.safetensors"):
        # safetensors makes files for their owner alone; a server may run as another user.
        path.chmod((target / "config.json").stat().st_mode)
    _check_loading(target, kind)
    return written


def merged_shards(actor: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Whole tensors by name. Shards are mapped, not read at once; what stays in memory is the model in `dtype`."""
    ranks = int(json.loads((actor / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    first = _shard(actor, ranks, 0)
    sharded = next((value for value in first.values() if isinstance(value, DTensor)), None)
    # One row of the mesh holds the whole model: with replicas, the other rows repeat it.
    members = (
        [0] if sharded is None else sharded.device_mesh.mesh.reshape(-1, sharded.device_mesh.mesh.shape[-1])[0].tolist()
    )
    shards = [first if rank == 0 else _shard(actor, ranks, rank) for rank in members]
    if any(shard.keys() != first.keys() for shard in shards):
        raise UnmergedCheckpoint(f"the shards in {actor} hold different tensors")
    weights = {}
    for name, value in first.items():
        if isinstance(value, DTensor):
            placement = value.placements[-1]
            parts = [shard[name].to_local() for shard in shards]
            whole = torch.cat(parts, dim=placement.dim) if placement.is_shard() else parts[0]
            if whole.shape != value.shape:
                raise UnmergedCheckpoint(f"{name}: the shards in {actor} make {list(whole.shape)}, not {list(value.shape)}")
        elif isinstance(value, torch.Tensor):
            whole = value
        else:
            raise UnmergedCheckpoint(f"{name} in {actor} is a {type(value).__name__}; expected a tensor of fsdp or fsdp2")
        weights[name] = whole.to(dtype, copy=True).contiguous() if whole.is_floating_point() else whole.clone()
    return weights


def _shard(actor: Path, ranks: int, rank: int) -> dict[str, Any]:
    path = actor / f"model_world_size_{ranks}_rank_{rank}.pt"
    # Our own file: verl pickles the layout of tensors with them.
    return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=False))


def _merge_adapter(weights: dict[str, torch.Tensor], actor: Path) -> dict[str, torch.Tensor]:
    """LoRA's product added to what it adapts, and the names of the model without it."""
    lora = {name for name in weights if ".lora_" in name}
    if not lora and not any(name.startswith(_ADAPTER_PREFIX) for name in weights):
        return weights
    meta = json.loads((actor / "lora_train_meta.json").read_text(encoding="utf-8"))
    if not float(meta["lora_alpha"]) or not int(meta["r"]):
        raise UnmergedCheckpoint(f"{actor}/lora_train_meta.json has no rank or no alpha: {meta}")
    scale = float(meta["lora_alpha"]) / int(meta["r"])
    merged = {
        name.removeprefix(_ADAPTER_PREFIX).replace(".base_layer.", "."): value
        for name, value in weights.items()
        if name not in lora
    }
    for name in sorted(lora):
        if ".lora_A." not in name:
            continue
        place = name.removeprefix(_ADAPTER_PREFIX).partition(".lora_A.")[0] + ".weight"
        if place not in merged:
            raise UnmergedCheckpoint(
                f"{name}: the adapted weight is not in {actor}; it was saved with save_lora_only, which leaves the model out"
            )
        down, up = weights[name].float(), weights[name.replace(".lora_A.", ".lora_B.")].float()
        merged[place] = (merged[place].float() + scale * (up @ down)).to(merged[place].dtype)
    return merged


def _tied(model: Any) -> set[str]:
    """Names under which a tensor appears a second time."""
    first: dict[int, str] = {}
    again = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            again.add(name)
    return again


def _check_keys(model: Any, weights: Mapping[str, torch.Tensor], actor: Path) -> None:
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    missing = sorted(wanted.keys() - weights.keys() - _tied(model))
    unknown = sorted(weights.keys() - wanted.keys())
    shapes = [name for name, shape in wanted.items() if name in weights and weights[name].shape != shape]
    if missing or unknown or shapes:
        raise UnmergedCheckpoint(
            f"the shards in {actor} are not the model of huggingface/config.json: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}, {len(shapes)} of another shape {shapes[:3]}"
        )


def _check_loading(target: Path, dtype: torch.dtype) -> None:
    model, told = AutoModelForImageTextToText.from_pretrained(target, dtype=dtype, output_loading_info=True)
    wrong = {name: sorted(map(str, keys)) for name, keys in told.items() if keys and name.endswith("keys")}
    del model
    if wrong:
        raise UnmergedCheckpoint(f"{target} does not load as it was written: {wrong}")
