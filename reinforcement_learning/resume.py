"""Going on with a run: from which step, whether it is still the same run, and what must be forgotten.

A run's folder holds the recipe and the checksums of the data that it was started with. When there is a checkpoint to go on
from, both are compared with today's; a difference is refused, because training would go on with other meaning under the same
curves, or skip rows unseen. Keys that change nothing of what is learned may differ (`FREE`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agent.files import write_whole
from code_sandbox.redaction import redacted
from reinforcement_learning.checkpoints import Checkpoint, Checkpoints
from reinforcement_learning.fingerprints import data_changes_since, fingerprints, model_changes_since
from reinforcement_learning.recipe import Recipe

METRICS_FILE = "metrics.jsonl"
ADVANTAGES_FILE = "advantages.jsonl"
"""A line a step: `{"step": 3, "advantages": {"<episode id>": 0.83, …}}`, of the rollouts that it was trained on."""
REF_LOG_PROBS = "ref_log_probs"
"""A folder with `<step>.npz`: by episode id, what the reference policy thinks of the sampled tokens; only with a KL term."""
RECIPE_FILE = "recipe.resolved.yaml"
_RESUME_FILE = "resume.json"
_LOG_ONLY = "agent.judge.log_only"

FREE = (
    # Places, addresses and names; data and model are compared by content.
    "run.directory",
    "run.model",
    "run.train_files",
    "run.val_files",
    "run.env.*",
    "agent.sandbox_urls",
    "agent.judge.base_urls",
    "agent.judge.cache",
    "verl.trainer.project_name",
    "verl.trainer.experiment_name",
    "verl.trainer.default_local_dir",
    # How long, how often, and where it is told.
    "verl.trainer.total_training_steps",
    "verl.trainer.total_epochs",
    "verl.trainer.save_freq",
    "verl.trainer.test_freq",
    "verl.trainer.val_before_train",
    "verl.trainer.logger",
    "verl.trainer.log_val_generations",
    "verl.trainer.*_data_dir",
    "verl.trainer.max_*_ckpt_to_keep",
    "verl.trainer.resume_*",
    "verl.data.val_*",
    "agent.record*",
    "agent.samples*",
    # Chance: the order of the data that was begun is part of the checkpoint.
    "verl.data.seed",
    "verl.actor_rollout_ref.rollout.seed",
    # Patience and room: what is waited for and how much runs at once.
    "agent.*_outage.*",
    "agent.failed_groups.max_in_a_row",
    "agent.reply_deadline_s",
    "agent.max_in_flight*",
    "agent.max_sandbox_calls",
    "agent.judge.timeout_s",
    "agent.judge.attempts",
    "agent.judge.patience_s",
    "agent.judge.max_in_flight",
    "agent.judge.max_reply_tokens",
    # Machines and memory. The number of training ranks is held against the checkpoint itself.
    "verl.trainer.nnodes",
    "verl.trainer.n_gpus_per_node",
    "verl.trainer.device",
    "verl.ray_kwargs.*",
    "verl.transfer_queue.*",
    "verl.reward.num_workers",
    "verl.global_profiler.*",
    "verl.actor_rollout_ref.nccl_timeout",
    "verl.actor_rollout_ref.*micro_batch_size_per_gpu",
    "verl.actor_rollout_ref.*max_token_len_per_gpu",
    "verl.actor_rollout_ref.*use_dynamic_bsz",
    "verl.actor_rollout_ref.*_offload",
    "verl.actor_rollout_ref.actor.checkpoint.*",
    "verl.actor_rollout_ref.rollout.agent.num_workers",
    "verl.actor_rollout_ref.rollout.gpu_memory_utilization",
    "verl.actor_rollout_ref.rollout.tensor_model_parallel_size",
    "verl.actor_rollout_ref.rollout.max_num_*",
    "verl.actor_rollout_ref.rollout.enforce_eager",
    "verl.actor_rollout_ref.rollout.free_cache_engine",
    "verl.actor_rollout_ref.rollout.checkpoint_engine.*",
    "verl_extra.ray_kwargs.*",
    "verl_extra.trainer.ray_wait_register_center_timeout",
)
"""Keys that may change from one start to the next."""

DATA_POSITION = (
    "verl.data.shuffle",
    "verl.data.train_batch_size",
    "verl.data.gen_batch_size",
    "verl.data.dataloader_num_workers",
    "verl.data.train_max_samples",
    "verl.data.filter_overlong_*",
    "verl.data.max_prompt_length",
    "verl.data.sampler.*",
    "verl.algorithm.filter_groups.enable",
    "agent.failed_groups.refill",
)
"""Keys after whose change the stored position in the data means nothing."""


class ResumeRefused(ValueError):
    """The folder holds a run of another recipe or other data."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a run is to be started."""

    directory: Path
    checkpoint: Checkpoint | None
    """None: from the first step."""
    restart_data: bool
    """Read the data from its beginning, though the weights go on."""
    data_files: tuple[str, ...]
    changes: tuple[str, ...] = ()
    """Differences that were accepted."""

    @property
    def step(self) -> int:
        """The last step that is there already."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def message(self) -> str:
        """One line for the person who starts the run."""
        if self.checkpoint is None:
            return f"starts from the first step in {self.directory}"
        position = "the data starts from its beginning" if self.restart_data else "the data goes on where it was"
        return f"resumes after step {self.step} from {self.checkpoint.path}; {position}"


def check_resume(
    directory: Path,
    recipe: Recipe,
    data_files: Sequence[str],
    *,
    world_size: int,
    accept: bool = False,
    mode: str = "auto",
    verl_default: Callable[[str], Any] = lambda _: None,
) -> Start:
    """Compare a run's folder with what is to be started in it. Changes nothing.

    Args:
        directory: The run's folder, there or not.
        recipe: Today's.
        data_files: Today's training files, in their order.
        world_size: Ranks that will train.
        accept: Go on in spite of differences.
        mode: verl's `trainer.resume_mode`; anything but `auto` is the person's own decision and is not compared.
        verl_default: What verl takes for a key that a recipe does not set; setting that is no difference.

    Raises:
        ResumeRefused: The message lists the differences.
    """
    files = tuple(data_files)
    checkpoint = Checkpoints(directory / "checkpoints").newest()
    if mode == "disable":
        checkpoint = None
    elif mode != "auto":
        return Start(directory, _named(recipe), False, files)
    if checkpoint is None:
        return Start(directory, None, False, files)
    if checkpoint.world_size not in (None, world_size):
        raise ResumeRefused(
            f"{checkpoint.path} was written by {checkpoint.world_size} ranks and this recipe trains on {world_size} (nnodes "
            "x n_gpus_per_node); verl reads a checkpoint on the same number only. Use as many, or make a model of it with "
            f"`deepeyes export {directory} --out NEW` and start a new run from run.model=NEW"
        )
    changed = _recipe_changes(directory, recipe, verl_default)
    data_changes = data_changes_since(directory, files)
    lines = [f"{key}: {_short(old)} -> {_short(new)}" for key, (old, new) in changed.items()]
    lines += model_changes_since(directory, recipe.run.model) + data_changes
    lost = bool(data_changes) or any(_matches(key, DATA_POSITION) for key in changed)
    if lines and not accept:
        listed = "\n  ".join(lines)
        position = "the data would start from its beginning" if lost else "the data would go on where it was"
        raise ResumeRefused(
            f"{directory} holds a run at step {checkpoint.step} that was started differently:\n  {listed}\n"
            f"Give the new run a folder of its own (run.directory=...), or go on deliberately with --accept-changes: "
            f"weights and optimiser would go on from step {checkpoint.step}, and {position}"
        )
    restart = lost or restarts_data(directory, checkpoint.step)
    return Start(directory, checkpoint, restart, files, tuple(lines))


def begin(start: Start, recipe: Recipe) -> list[str]:
    """Make the run's folder ready: what lies after the step to go on from is forgotten, and today's recipe is written.

    Returns:
        What was cleared away, for the person who starts the run.
    """
    directory = start.directory
    directory.mkdir(parents=True, exist_ok=True)
    told = Checkpoints(directory / "checkpoints").tidy(start.step if start.checkpoint else None)
    # First of all, so that a kill right after it cannot lose what was decided about the data.
    write_whole(directory / _RESUME_FILE, json.dumps({"step": start.step, "restart_data": start.restart_data}), durable=True)
    forget_steps_after(directory / METRICS_FILE, start.step, start.checkpoint.metrics if start.checkpoint else {})
    forget_steps_after(directory / ADVANTAGES_FILE, start.step)
    for name, text in fingerprints(directory, start.data_files, recipe.run.model).items():
        write_whole(directory / name, text, durable=True)
    text = yaml.safe_dump(redacted(recipe.model_dump(mode="json")), sort_keys=False)
    write_whole(directory / RECIPE_FILE, text, durable=True)
    return told


def forget_steps_after(path: Path, step: int, last: Mapping[str, Any] | None = None) -> None:
    """Cut a file with a line a step to the steps up to one, each once, in one move.

    Args:
        path: A JSON object a line, with `step`.
        step: The last that stays.
        last: What a checkpoint knows of that step; used if the file has no line for it, because the kill came in between.
    """
    rows: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            number = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
        if number <= step:
            rows[number] = line
    if last and step not in rows:
        rows[step] = json.dumps(dict(last))
    if path.exists() or rows:
        write_whole(path, "".join(f"{rows[number]}\n" for number in sorted(rows)), durable=True)


def restarts_data(directory: Path, step: int) -> bool:
    """Whether it was decided that the data starts anew after this step; trainers ask."""
    try:
        decided = json.loads((directory / _RESUME_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(decided.get("restart_data")) and decided.get("step") == step


def _named(recipe: Recipe) -> Checkpoint | None:
    """The checkpoint that `trainer.resume_from_path` names."""
    path = Path(str(recipe.verl.get("trainer", {}).get("resume_from_path", "")))
    _, _, step = path.name.partition("global_step_")
    return Checkpoint(int(step), path) if step.isdecimal() else None


def _recipe_changes(directory: Path, recipe: Recipe, verl_default: Callable[[str], Any]) -> dict[str, tuple[Any, Any]]:
    path = directory / RECIPE_FILE
    if not path.is_file():
        return {}
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    with contextlib.suppress(ValidationError):
        # With the defaults of keys that came later.
        stored = Recipe.model_validate(stored).model_dump(mode="json")
    # Older runs wrote passwords down; a password that changes is no change of the run.
    old, new = (_flat(redacted(values)) for values in (stored, recipe.model_dump(mode="json")))
    if all(values.get("agent.judge.strict_rules") for values in (old, new)):
        # Rules decide everything; whether an LLM is asked as well changes the record only.
        old.pop(_LOG_ONLY, None)
        new.pop(_LOG_ONLY, None)
    changes = {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if not _matches(key, FREE)}
    return {
        key: pair
        for key, pair in changes.items()
        if pair[0] != pair[1] and not (None in pair and _is_default(key, pair, verl_default))
    }


def _is_default(key: str, pair: tuple[Any, Any], verl_default: Callable[[str], Any]) -> bool:
    room, _, path = key.partition(".")
    if room not in ("verl", "verl_extra"):
        return False
    default = verl_default(path)
    return all(value is None or value == default for value in pair)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
