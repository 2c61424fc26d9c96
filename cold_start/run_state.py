"""What a run was started with, so that going on with something else is a decision and no accident."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.files import write_whole
from agent.recipes import load_yaml
from code_sandbox.redaction import redacted
from cold_start.checkpoints import checkpoints, is_finished

RECIPE_FILE = "recipe.resolved.yaml"
_RUN_FILE = "run.json"
_UNSET: Any = object()
# These change how a run is watched, saved or fed, and not what it learns.
_FREE_KEYS = frozenset([
    "output_dir", "dataset", "dataset_dir", "resume_from_checkpoint", "overwrite_output_dir", "overwrite_cache",
    "logging_steps", "logging_strategy", "logging_first_step", "disable_tqdm", "log_level", "plot_loss", "report_to",
    "run_name", "project", "save_steps", "save_strategy", "save_total_limit", "preprocessing_num_workers",
    "preprocessing_batch_size", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "dataloader_persistent_workers", "ddp_timeout", "data_shared_file_system", "cache_dir", "hf_hub_token",
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run depends on besides its recipe."""

    content_sha256: str
    """Of the conversations; see `prepare_data.content_sha256`."""
    num_conversations: int
    num_processes: int
    """Over all nodes."""


def has_run(output_dir: Path) -> bool:
    """Whether there is something to go on with, or a finished model."""
    return bool(checkpoints(output_dir)) or is_finished(output_dir)


def differences(output_dir: Path, settings: Mapping[str, Any], facts: RunFacts | None) -> list[str]:
    """The differences between a run that is there and what is asked for now; none if it is the same, or if there is no run.

    Args:
        output_dir: The run's folder.
        settings: LLaMA-Factory's settings as the recipe has them, before resuming is filled in.
        facts: None where the data could not be read; only settings are compared then.
    """
    if not has_run(output_dir):
        return []
    recorded = _recorded_settings(output_dir)
    if recorded is None:
        return [f"{output_dir / RECIPE_FILE} cannot be read, so nobody knows what the checkpoints there were trained with"]
    found, settings = [], redacted(dict(settings))
    for key in sorted((recorded.keys() | settings.keys()) - _FREE_KEYS):
        before, now = recorded.get(key, _UNSET), settings.get(key, _UNSET)
        if key == "model_name_or_path" and _is_own_checkpoint(before, output_dir):
            continue  # recorded by a version that wrote the checkpoint in the model's place
        if before != now:
            found.append(f"{key} was {_shown(before)}, now {_shown(now)}")
    before_facts = _recorded_facts(output_dir)
    if facts is not None and before_facts is not None:
        if before_facts.content_sha256 != facts.content_sha256:
            found.append(
                f"the data: there were {before_facts.num_conversations:,} conversations, now {facts.num_conversations:,}"
                + (", with other content" if before_facts.num_conversations == facts.num_conversations else "")
            )
        if before_facts.num_processes != facts.num_processes:
            found.append(
                f"processes: there were {before_facts.num_processes}, now {facts.num_processes}; that changes the batch "
                "size, and DeepSpeed cannot read its checkpoints with another number"
            )
    return found


def record(output_dir: Path, settings: Mapping[str, Any], facts: RunFacts) -> None:
    """Write down what this run is."""
    write_whole(output_dir / RECIPE_FILE, [yaml.safe_dump(redacted(dict(settings)), sort_keys=False)], durable=True)
    write_whole(output_dir / _RUN_FILE, [json.dumps(asdict(facts), indent=1)], durable=True)


def _recorded_settings(output_dir: Path) -> dict[str, Any] | None:
    try:
        content = load_yaml((output_dir / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None


def _recorded_facts(output_dir: Path) -> RunFacts | None:
    try:
        return RunFacts(**json.loads((output_dir / _RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_own_checkpoint(model: Any, output_dir: Path) -> bool:
    if not isinstance(model, str):
        return False
    return Path(model).name.startswith("checkpoint-") and Path(model).parent.name == output_dir.name


def _shown(value: Any) -> str:
    return "not set" if value is _UNSET else repr(value)
