"""What the machine must have for a recipe: model, DeepSpeed, attention, GPUs, disk, a place to log to."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import netrc
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.chat_formats import ChatFormat, UnknownFamily, chat_template_of, format_of, format_of_template
from agent.recipes import RecipeError
from cold_start.checkpoints import missing_weights, safetensors_header
from cold_start.launch import Launch

_HUB_TIMEOUT_S = 3.0
_GIB = 1 << 30


def model_folder(model: str) -> Path | None:
    """Where a model lies on this machine: its folder, or the hub's cache; None if it is not here."""
    if Path(model).is_dir():
        return Path(model)
    if _looks_local(model):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _looks_local(model: str) -> bool:
    return model.startswith((".", "/", "~", "runs/", "saves/")) or model.count("/") != 1


def check_model(model: str, template: str) -> str:
    """The model is there, whole, and of the template's family.

    Raises:
        RecipeError: It is not; or it is a hub's model, not fetched before, and the hub cannot be reached.
    """
    try:
        written = format_of_template(template)
    except UnknownFamily as error:
        raise RecipeError(str(error)) from error
    folder = model_folder(model)
    if folder is None:
        if _looks_local(model):
            raise RecipeError(f"model_name_or_path is {model!r}, but there is no {model}/config.json; give a model's folder")
        _check_hub(model)
        return f"{model} (not here yet; the hub has it, and it is fetched at the start)"
    config = folder / "config.json"
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except OSError as error:
        raise RecipeError(f"model_name_or_path is {model!r}, but there is no {config}; give a model's folder") from error
    except (ValueError, AttributeError) as error:
        raise RecipeError(f"{config} is no model's configuration ({error}); was its download cut off?") from error
    _check_family(model, kind, written, chat_template_of(folder))
    if missing := next(missing_weights(folder), None):
        raise RecipeError(f"{model} lacks {missing}; fetch it again")
    return f"{model} ({kind})"


def _check_family(model: str, kind: str | None, written: ChatFormat, chat_template: str) -> None:
    try:
        wanted = format_of(kind, chat_template)
    except UnknownFamily as error:
        raise RecipeError(f"{model}: {error}") from error
    if wanted is not written:
        raise RecipeError(
            f"{model} is a {kind!r}, talked to as {wanted.name}; the template {written.llama_factory_template} is for "
            f"{written.name}. Set template={wanted.llama_factory_template}"
        )


def _check_hub(model: str) -> None:
    import httpx
    from huggingface_hub import constants

    advice = f"fetch it where there is a network (hf download {model}) or set model_name_or_path to a model's folder"
    if constants.HF_HUB_OFFLINE:
        raise RecipeError(f"{model} is no folder and not in the hub's cache, and HF_HUB_OFFLINE is set; {advice}")
    try:
        answer = httpx.head(
            f"{constants.ENDPOINT}/{model}/resolve/main/config.json", timeout=_HUB_TIMEOUT_S, follow_redirects=True
        )
    except httpx.HTTPError as error:
        raise RecipeError(
            f"{model} is no folder nor in the hub's cache, and the hub does not answer ({type(error).__name__}); {advice}"
        ) from error
    if answer.status_code >= 400:
        raise RecipeError(f"{model} is no folder, and the hub says {answer.status_code} to it; {advice}")


def check_deepspeed(settings: Mapping[str, Any]) -> str:
    """The DeepSpeed file is there, and DeepSpeed too.

    Raises:
        RecipeError: One of them is not.
    """
    named = settings.get("deepspeed")
    if not named:
        return "not used"
    problems = []
    if isinstance(named, str):
        try:
            json.loads(Path(named).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"deepspeed: {named} cannot be read as JSON ({error})")
    if importlib.util.find_spec("deepspeed") is None:
        problems.append("the recipe names DeepSpeed, which is not installed; see requirements/README.md, or deepspeed=null")
    if problems:
        raise RecipeError("; ".join(problems))
    return f"{named}, version {importlib.metadata.version('deepspeed')}"


def check_attention(settings: Mapping[str, Any]) -> str:
    """The attention that is asked for can be had; LLaMA-Factory only logs a line when it cannot.

    Raises:
        RecipeError: It cannot.

    Source: LLaMA-Factory 0.9.5, model/model_utils/attention.py.
    """
    asked = str(settings.get("flash_attn", "auto"))
    if asked == "fa2" and importlib.util.find_spec("flash_attn") is None:
        raise RecipeError(
            "flash_attn: fa2, but flash-attn is not installed, and LLaMA-Factory would go on without it; install it, or "
            "flash_attn=sdpa"
        )
    if asked == "fa2" and settings.get("use_cpu") is True:
        raise RecipeError("flash_attn: fa2 needs a GPU, and use_cpu is set; flash_attn=sdpa")
    if asked == "fa3":
        raise RecipeError("flash_attn: fa3 is for other models than Qwen2.5-VL in LLaMA-Factory; flash_attn=fa2 or sdpa")
    return f"flash_attn: {asked}" + (" (transformers takes sdpa)" if asked == "auto" else "")


def count_gpus() -> int:
    """GPUs that torch sees, without starting CUDA on one."""
    import torch

    return int(torch.cuda.device_count())


def check_gpus(settings: Mapping[str, Any], launch: Launch, num_gpus: int) -> str:
    """There are as many GPUs as processes.

    Raises:
        RecipeError: There are not.
    """
    if settings.get("use_cpu") is True:
        return f"{launch.num_processes} processes on CPUs (use_cpu)"
    if num_gpus == 0:
        raise RecipeError("this machine has no GPU that torch can see, and the recipe does not say use_cpu: true")
    if launch.processes_per_node > num_gpus:
        raise RecipeError(f"NPROC_PER_NODE is {launch.processes_per_node}, and this machine has {num_gpus} GPUs")
    unused = num_gpus - launch.processes_per_node
    return f"{launch.num_nodes} nodes x {launch.processes_per_node} GPUs" + (f"; {unused} stay unused" if unused else "")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters of a model, counted in its weights files."""

    total: int
    trained: int


def model_size(folder: Path, settings: Mapping[str, Any]) -> ModelSize:
    """Count parameters, and those that the recipe trains.

    Raises:
        RecipeError: The weights cannot be read.
    """
    total = frozen = 0
    for file in folder.glob("*.safetensors"):
        header = safetensors_header(file)
        if header is None:
            raise RecipeError(f"{file} is cut off; fetch it again")
        for name, entry in header.items():
            number = math.prod(entry["shape"]) if name else 0
            total += number
            if ("visual." in name and _frozen(name, settings)) or (
                "visual." not in name and settings.get("freeze_language_model", False)
            ):
                frozen += number
    return ModelSize(total, total - frozen)


def _frozen(name: str, settings: Mapping[str, Any]) -> bool:
    part = "freeze_multi_modal_projector" if ".merger." in name else "freeze_vision_tower"
    return bool(settings.get(part, True))


def checkpoint_bytes(size: ModelSize, settings: Mapping[str, Any]) -> int:
    """How much one checkpoint takes.

    DeepSpeed's ZeRO-3: weights in 2 bytes a parameter, master weights and two moments in 12 bytes a trained one, the frozen
    ones once more. Otherwise LLaMA-Factory trains in 4 bytes a parameter, and Adam's moments take 8. Adapters are small.
    """
    if settings.get("finetuning_type", "lora") != "full":
        return 0
    save_optimizer = not settings.get("save_only_model", False)
    if settings.get("deepspeed"):
        return 2 * size.total + save_optimizer * (12 * size.trained + 2 * (size.total - size.trained))
    return 4 * size.trained + 2 * (size.total - size.trained) + save_optimizer * 8 * size.trained


def num_steps(num_conversations: int, settings: Mapping[str, Any], launch: Launch) -> int:
    """Optimiser steps of the whole run."""
    if int(settings.get("max_steps") or -1) > 0:
        return int(settings["max_steps"])
    per_process = math.ceil(num_conversations / launch.num_processes)
    batches = math.ceil(per_process / int(settings.get("per_device_train_batch_size", 8)))
    steps_per_epoch = math.ceil(batches / int(settings.get("gradient_accumulation_steps", 1)))
    return math.ceil(steps_per_epoch * float(settings.get("num_train_epochs", 3.0)))


def check_disk(
    output_dir: Path, size: ModelSize | None, settings: Mapping[str, Any], steps: int | None, *, copies: int = 0
) -> str:
    """There is room for the checkpoints that are kept, the one being written, the final model, and copies of images.

    Args:
        output_dir: Of the run.
        size: Of the model; None if it is not here.
        settings: `llamafactory:` of a recipe.
        steps: Of the whole training; None if they are not known.
        copies: Bytes that the images take as the model sees them.

    Raises:
        RecipeError: There is not.
    """
    existing = next(path for path in (output_dir, *output_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RecipeError(f"{existing} is not a folder that one may write to; set output_dir=…")
    free = shutil.disk_usage(existing).free
    if size is None:
        return f"{free / _GIB:,.0f} GiB free in {existing}; what a checkpoint takes is known once the model is here"
    one = checkpoint_bytes(size, settings)
    saves = math.ceil(steps / _save_steps(settings, steps)) if steps else math.inf
    limit = settings.get("save_total_limit")
    kept = min(saves, int(limit)) if limit else saves
    if kept == math.inf:
        kept = 3
    # The oldest is removed only after the newest was written.
    at_once = kept + 1 if saves > kept else kept
    # Of a run that goes on, checkpoints that are there already will make room.
    there = sum(file.stat().st_size for file in output_dir.glob("checkpoint-*/**/*") if file.is_file())
    needed = max(0, int(at_once * one) - there) + 4 * size.total + copies
    images = f", images {_shown(copies)}" if copies else ""
    text = f"a checkpoint takes {_shown(one)}, {int(at_once)} at once{images}; needed {_shown(needed)}, free {_shown(free)}"
    if needed > free:
        raise RecipeError(f"{text}. Free some, set output_dir=…, a smaller save_total_limit, or save_only_model=true")
    return text


def _save_steps(settings: Mapping[str, Any], steps: int) -> int:
    if settings.get("save_strategy") == "epoch":
        return max(1, math.floor(steps / max(1.0, float(settings.get("num_train_epochs", 3.0)))))
    save_steps = float(settings.get("save_steps", 500))
    return max(1, int(save_steps if save_steps >= 1 else save_steps * steps))


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.0f} GB" if num_bytes >= 10**10 else f"{num_bytes / 1e6:,.0f} MB"


def describe_rotation(settings: Mapping[str, Any]) -> str:
    """How many checkpoints are kept.

    transformers removes the older checkpoint before LLaMA-Factory has written the processor to the new one.
    """
    limit = settings.get("save_total_limit")
    if limit == 1:
        return "one is kept: a kill while it replaces the one before loses both; save_total_limit=2 does not"
    return f"the newest {limit} are kept" if limit else "all are kept"


def check_logger(settings: Mapping[str, Any]) -> str:
    """Whoever is logged to knows us.

    Raises:
        RecipeError: wandb is asked for and is not installed, or nobody is logged in to it.
    """
    asked = settings.get("report_to", "none")
    names = [asked] if isinstance(asked, str) else list(asked or [])
    if not {"wandb", "all"} & set(names):
        return f"report_to: {', '.join(names) or 'none'}"
    if importlib.util.find_spec("wandb") is None:
        raise RecipeError("report_to: wandb, which is not installed; install it, or report_to=none")
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "disabled", "dryrun") or os.environ.get("WANDB_API_KEY"):
        return f"report_to: wandb ({mode})"
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _wandb_default_url()).hostname or ""
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    if not known:
        raise RecipeError("report_to: wandb, and nobody is logged in: `wandb login`, WANDB_MODE=offline, or report_to=none")
    return "report_to: wandb (logged in)"


def _wandb_default_url() -> str:
    from wandb.sdk import wandb_settings

    return str(wandb_settings.Settings().base_url)
