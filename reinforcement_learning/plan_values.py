"""What a plan reads from a recipe, and what it has to assume."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError
from reinforcement_learning.recipe import Recipe

GIB = 1 << 30

PUBLISHED_STEPS = 60
"""Where the data is not here: what the authors ran. Source: DeepEyesV2 issue 1."""

VERL_DEFAULTS: dict[str, Any] = {
    "data.train_batch_size": 1024,
    "data.max_prompt_length": 512,
    "data.max_response_length": 512,
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.model.use_fused_kernels": False,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.model.exclude_modules": None,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": None,
    "actor_rollout_ref.actor.use_dynamic_bsz": False,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 16384,
    "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "optimizer", "extra"],
    "actor_rollout_ref.actor.fsdp_config.fsdp_size": -1,
    "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
    "actor_rollout_ref.actor.fsdp_config.param_offload": False,
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload": False,
    "actor_rollout_ref.actor.fsdp_config.offload_policy": False,
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.dtype": "bfloat16",
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
    "actor_rollout_ref.rollout.free_cache_engine": True,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 8192,
    "actor_rollout_ref.rollout.max_num_seqs": 256,
    "actor_rollout_ref.rollout.agent.num_workers": 8,
    "trainer.nnodes": 1,
    "trainer.n_gpus_per_node": 8,
    "trainer.device": "cuda",
    "trainer.save_freq": -1,
    "trainer.test_freq": -1,
    "trainer.total_epochs": 30,
    "trainer.total_training_steps": None,
    "trainer.max_actor_ckpt_to_keep": None,
}
"""verl 0.9.1's own values for the keys that are read here; a test holds them against the installed configuration."""

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
"""Of one number in each of verl's names for its types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """What arithmetic cannot know, with where each number is from. All can be given on the command line or in Python."""

    gpu_bytes: int = 79 * GIB
    """Of an 80 GB H100 or A100, as the driver reports it."""
    question_tokens: int = 1200
    """System message and question without images; the published prompts are 900 to 1,300 tokens long."""
    image_px: int = 1_000_000
    """Of a question's image, before any cap."""
    replies_tokens: int = 450
    """Sampled in an episode. Source: DeepEyesV2 assets/dynamic.png, 545 at the start of training and 355 at its end."""
    calls: float = 1.3
    """Of tools in an episode. Same source: 1.45 at the start, 1.12 at the end."""
    observation_tokens: int = 600
    """What a tool call puts into the context: text, and often a crop."""
    observation_text_tokens: int = 150
    """Of those, text."""
    chars_per_token: float = 4.2
    """Bytes of text; Qwen's tokenizer on English."""
    observation_images: float = 0.8
    """New images a call leaves in the recordings."""
    observation_image_bytes: int = 1_070_000
    """A crop of 1000x800 px as PNG; docs/results.md."""
    cell_s: float = 0.1
    """Of one core for a cell that crops, shows and encodes an image; docs/results.md measures 63 to 94 ms."""
    rows: int | None = None
    """Of the training data; None counts those of files that are there."""

    def episode_tokens(self, image_max_pixels: int | None, factor_px: int) -> int:
        """A mean episode in the model's context; `factor_px` a side become one token."""
        image = image_tokens(min(self.image_px, image_max_pixels or self.image_px), factor_px)
        return round(self.question_tokens + image + self.replies_tokens + self.calls * self.observation_tokens)


def image_tokens(pixels: int, factor_px: int) -> int:
    """Tokens of an image of so many pixels: one for each square of `factor_px` a side, and the two that enclose it."""
    return math.ceil(pixels / factor_px**2) + 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Who works where."""

    nodes: int
    gpus_per_node: int
    shards: int
    """GPUs that share one copy of the training state (`fsdp_size`)."""
    tensor_parallel: int

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.nodes * self.gpus_per_node

    @property
    def copies(self) -> int:
        """The copies of the training state; verl 0.9.1 saves each of them (every rank writes its shard)."""
        return self.gpus // self.shards

    @property
    def replicas(self) -> int:
        """vLLM servers."""
        return max(1, self.gpus // self.tensor_parallel)


class VerlValues:
    """verl's values of a recipe, over verl's defaults."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, key: str) -> Any:
        """The value of a dotted key of `VERL_DEFAULTS`."""
        if key in self._recipe.verl_extra:
            return self._recipe.verl_extra[key]
        value: Any = self._recipe.verl
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return VERL_DEFAULTS[key]
            value = value[part]
        return VERL_DEFAULTS[key] if value is None else value


def layout_of(values: VerlValues, gpus: int | None) -> Layout:
    """How a recipe lies on nodes and GPUs; `gpus` in place of its own number if given."""
    nodes, per_node = values("trainer.nnodes"), values("trainer.n_gpus_per_node")
    if gpus is not None:
        per_node = min(8, gpus)
        nodes, rest = divmod(gpus, per_node) if gpus > 0 else (0, 0)
        if gpus < 1 or rest:
            raise RecipeError(f"--gpus is {gpus}; expected 1 to 8, or a multiple of 8 (nodes of 8)")
    size = values("actor_rollout_ref.actor.fsdp_config.fsdp_size")
    world = nodes * per_node
    return Layout(
        nodes=nodes,
        gpus_per_node=per_node,
        shards=size if 0 < size < world else world,
        tensor_parallel=values("actor_rollout_ref.rollout.tensor_model_parallel_size"),
    )


def find_data(patterns: Iterable[str]) -> list[Path]:
    """The files that are there; those that are missing are the data check's business."""
    return [Path(file) for pattern in patterns for file in sorted(glob.glob(pattern))]  # noqa: PTH207


def count_rows(patterns: Iterable[str]) -> int | None:
    """Count the rows of parquet files by their footers; None where there are none, or one cannot be read."""
    files = find_data(patterns)
    if not files:
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        return sum(int(pyarrow.parquet.ParquetFile(file).metadata.num_rows) for file in files)
    except (pyarrow.ArrowException, OSError):
        return None  # the check of the data says what is wrong with it


def episodes_at_once(recipe: Recipe) -> int:
    """Episodes in flight: all of a step's start together, and so do those of a validation."""
    values = VerlValues(recipe)
    training = int(values("data.train_batch_size") * values("actor_rollout_ref.rollout.n"))
    validated = count_rows(recipe.run.val_files) if values("trainer.test_freq") > 0 else None
    return max(training, validated or 0)
