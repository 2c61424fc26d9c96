"""What a recipe will ask of GPUs, hosts, disks, sandboxes and the judge: arithmetic on its values, without torch or verl.

The formulae, with what each was held against, are in docs/plan.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reinforcement_learning.model_shape import ModelShape, shape_of
from reinforcement_learning.plan_values import (
    BYTES,
    GIB,
    PUBLISHED_STEPS,
    Assumptions,
    Layout,
    VerlValues,
    count_rows,
    episodes_at_once,
    find_data,
    layout_of,
)
from reinforcement_learning.recipe import Recipe

SESSION_BYTES = 60 << 20
"""An idle session takes 4.8 MiB (docs/results.md); the rest is for an opened 8-megapixel image and a figure."""

_PROCESS_BYTES = 12 * GIB
"""A trainer rank and its vLLM server with CUDA, imports and buffers: an estimate."""
_WORKER_BYTES = GIB
_TOKEN_BYTES = 100
"""Ids, masks, positions and log-probabilities of a token in TransferQueue, and a second copy where they are used."""
_TOKENIZER_BYTES = 16 << 20
_EXTRA_BYTES = 15_000
"""Random states and the scheduler of one rank."""
_JUDGE_TOKENS = 500
"""The prompt of judge/prompts with question, gold and an answer of at most 300 characters, and a few tokens of reply."""

_PNG_BYTES_PER_PX = 1.6
"""Of a photo without loss, as images are shown; seen: 1.0 to 2.0."""
_STORED_STEPS = 5
"""This one and the four before it; verl_adapter/image_store.py."""

_LINE_BYTES = 710
_TURN_BYTES = 330
_JPEG_BYTES_PER_PX = 0.2
"""A photograph; docs/results.md has 618 kB for 3.1 megapixels."""
_ID_BYTES = 3.4
_LOGPROB_BYTES = 6.8
"""Of a token, after zlib and base64. Fitted to one run of the toy task, and within 4 % of three others (docs/plan.md)."""
_REPLY_COPIES = 1.2
"""Code of a reply stands in the recorded action as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMemory:
    """Bytes on one GPU."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int
    """Of the weights that are spread over GPUs, what is whole while it is computed, and gradients on their way."""
    stepping: int
    """The optimizer's own while it steps: one number for each trained one. Activations are gone then."""
    kept_while_rolling_out: int
    """Of weights and optimizer, what is not offloaded."""
    vllm: int
    vllm_weights: int
    vllm_working: int
    """vLLM's own activations and graphs."""
    vllm_awake_in_training: int
    """With `free_cache_engine` vLLM sleeps then and holds nothing."""
    kv_cache: int
    kv_tokens: int

    @property
    def training(self) -> int:
        """While the policy is updated."""
        states = self.weights + self.gradients + self.optimizer
        return states + max(self.activations + self.gathered, self.stepping) + self.vllm_awake_in_training

    @property
    def rolling_out(self) -> int:
        """While episodes are made."""
        return self.kept_while_rolling_out + self.vllm


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """Bytes under the run's directory."""

    checkpoint: int
    """One of them, all ranks and copies."""
    checkpoints: int
    """Those kept, and one more while it is saved."""
    export: int
    """The model as a plain folder, in bfloat16."""
    recording_step: int
    """Of one step on average (`agent.record` thins them): text, tokens and log-probabilities, and images that tools made."""
    recordings: int
    """Of the whole run, as far as its length is known."""
    images: int
    """The questions' images, once."""
    step_images: int
    """Of the last steps, in the run's store of images: the questions' as they are shown, and those that tools made."""

    @property
    def total(self) -> int:
        """All of it at the end of the run."""
        return self.checkpoints + self.export + self.recordings + self.images + self.step_images


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything about one recipe on one layout."""

    shape: ModelShape
    layout: Layout
    gpu: GpuMemory | None
    """None without GPUs."""
    host_bytes: Mapping[str, int]
    """Of one node, by what takes it."""
    disk: Disk
    episodes: int
    """In flight at once: verl starts a step's all together."""
    episode_tokens: int
    longest_tokens: int
    """Prompt and response limits together."""
    token_budget: int
    """Tokens that one GPU trains on at once."""
    updates: int
    """Of the policy in a step."""
    steps: int | None
    steps_per_epoch: int | None
    rows: int | None
    sessions: int
    """Sandbox sessions needed at once, all nodes together; 0 without the tool."""
    cell_core_s: float
    """Core seconds that a step's cells take, all nodes together."""
    judge_requests: int
    """In a step, at most: those that rules decide are never asked."""
    judge_tokens: int


def make_plan(recipe: Recipe, *, gpus: int | None = None, assume: Assumptions | None = None) -> Plan:
    """The plan of a recipe.

    Args:
        recipe: As `load_recipe` gives it.
        gpus: On this many GPUs instead of the recipe's, in nodes of at most 8.
        assume: What the recipe does not say.

    Raises:
        RecipeError: The model's shape is not known, or that many GPUs make no whole nodes.
    """
    assume = assume or Assumptions()
    values, shape = VerlValues(recipe), shape_of(recipe.run.model)
    layout = layout_of(values, gpus)
    prompts, group = values("data.train_batch_size"), values("actor_rollout_ref.rollout.n")
    longest = values("data.max_prompt_length") + values("data.max_response_length")
    mean = min(assume.episode_tokens(recipe.agent.image_max_pixels, shape.factor_px), longest)
    rows = assume.rows if assume.rows is not None else count_rows(recipe.run.train_files)
    per_epoch = None if rows is None else rows // prompts
    steps = values("trainer.total_training_steps")
    if steps is None and per_epoch is not None:
        steps = per_epoch * values("trainer.total_epochs")
    episodes = prompts * group
    with_code = "python" in recipe.agent.tools
    asked = 0 if recipe.agent.judge.strict_rules else episodes * recipe.agent.judge.votes
    has_gpus = values("trainer.device") != "cpu"
    budget = _token_budget(values, longest)
    return Plan(
        shape=shape,
        layout=layout,
        gpu=_gpu(shape, layout, values, budget, assume) if has_gpus else None,
        host_bytes=_host(shape, layout, values, episodes, mean, with_code=with_code) if has_gpus else {},
        disk=_disk(recipe, shape, layout, values, assume, steps=steps),
        episodes=episodes,
        episode_tokens=mean,
        longest_tokens=longest,
        token_budget=budget,
        updates=max(1, math.ceil(prompts / values("actor_rollout_ref.actor.ppo_mini_batch_size"))),
        steps=steps,
        steps_per_epoch=per_epoch,
        rows=rows,
        sessions=episodes_at_once(recipe) if with_code else 0,
        cell_core_s=episodes * assume.calls * assume.cell_s if with_code else 0.0,
        judge_requests=asked,
        judge_tokens=asked * _JUDGE_TOKENS,
    )


def _token_budget(values: VerlValues, longest: int) -> int:
    if values("actor_rollout_ref.actor.use_dynamic_bsz"):
        return int(values("actor_rollout_ref.actor.ppo_max_token_len_per_gpu"))
    return int((values("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu") or 1) * longest)


def _parameters(shape: ModelShape, values: VerlValues) -> tuple[int, int]:
    """All and the trained ones; verl trains the vision tower too, `freeze_vision_tower` is read by nothing."""
    rank = values("actor_rollout_ref.model.lora_rank")
    if not rank:
        return shape.parameters, shape.parameters
    excluded = str(values("actor_rollout_ref.model.exclude_modules") or "")
    adapters = shape.lora_parameters(rank, vision="visual" not in excluded)
    return shape.parameters + adapters, adapters


def _activations(shape: ModelShape, values: VerlValues, tokens: int) -> int:
    """When they are most: in the last layer's backward pass. Counted from what `benchmarks.gpu_step --explain` shows.

    Half of the tokens are taken to be of images, four patches each. Matrices are in bfloat16, norms in float32.
    """
    text, vision = shape.text, shape.vision
    patches = tokens // 2 * vision.merge**2
    saved, gradients = layer_bytes(tokens, text.hidden, text.active_intermediate, text.routed)
    vision_saved, vision_gradients = layer_bytes(patches, vision.hidden, vision.intermediate)
    # Beside the layers: pixels, the merger (which no checkpoint covers), embeddings with images put in.
    width = 3 * vision.temporal_patch * vision.patch_px**2
    around = patches * (14 * vision.hidden + 2 * width) + 2 * tokens * text.hidden
    head = _head(shape, values, tokens)
    if values("actor_rollout_ref.model.enable_gradient_checkpointing"):
        kept = (tokens * text.hidden * text.layers + patches * vision.hidden * vision.depth) * 2
        return kept + around + max(saved + gradients, vision_saved + vision_gradients, head)
    return saved * text.layers + vision_saved * vision.depth + around + max(gradients, vision_gradients, head)


def layer_bytes(tokens: int, hidden: int, intermediate: int, routed: int = 0) -> tuple[int, int]:
    """Bytes that a layer saves for its backward pass, and those of the gradients inside its MLP.

    Args:
        tokens: Of the batch.
        hidden: Width of the layer.
        intermediate: What one token goes through in the MLP, or in all its experts together.
        routed: Experts of a token, to each of which it is copied and from each of which an answer comes; not measured.
    """
    copies = 4 * routed * hidden
    return tokens * (26 * hidden + copies + 6 * intermediate), tokens * (6 * intermediate + copies)


def _head(shape: ModelShape, values: VerlValues, tokens: int) -> int:
    """Logits. verl's fused kernel makes them for 512 tokens at a time. Otherwise they are whole: once where flash-attn's
    cross-entropy puts the gradient in their place, else several times.
    """
    if values("actor_rollout_ref.model.use_fused_kernels"):
        return min(tokens, 512) * shape.text.vocabulary * 14
    # With padding removed flash-attn must be there.
    return tokens * shape.text.vocabulary * (2 if values("actor_rollout_ref.model.use_remove_padding") else 10)


def _gathered(shape: ModelShape, values: VerlValues, *, layers_trained: bool) -> int:
    """Two layers' weights, whole; one's gradients in float32, on their way to other GPUs; and a head that FSDP gathers with
    the whole model, with its gradient: one that is the embedding, or that fused kernels read.
    """
    text = shape.text
    layers = 2 * 2 * text.layer_parameters + (4 * text.layer_parameters if layers_trained else 0)
    fused = values("actor_rollout_ref.model.use_fused_kernels")
    head = text.vocabulary * text.hidden if text.tied or fused else 0
    return layers + head * (4 if layers_trained else 2)


def _gpu(shape: ModelShape, layout: Layout, values: VerlValues, budget: int, assume: Assumptions) -> GpuMemory:
    fsdp = "actor_rollout_ref.actor.fsdp_config."
    width = BYTES[str(values(f"{fsdp}model_dtype"))]
    everything, trained = _parameters(shape, values)
    on_host = bool(values(f"{fsdp}offload_policy"))
    weights, state = (0, 0) if on_host else (everything * width // layout.shards, trained * width // layout.shards)
    kept = 0 if values(f"{fsdp}param_offload") else weights
    kept += 0 if values(f"{fsdp}optimizer_offload") else 2 * state
    tensor = layout.tensor_parallel
    vllm = int(values("actor_rollout_ref.rollout.gpu_memory_utilization") * assume.gpu_bytes)
    served = shape.parameters * BYTES[str(values("actor_rollout_ref.rollout.dtype"))] // tensor
    batch = values("actor_rollout_ref.rollout.max_num_batched_tokens")
    working = batch * (4 * shape.text.hidden + 2 * shape.text.active_intermediate // tensor) * 2 + 2 * GIB
    cache = max(0, vllm - served - working)
    return GpuMemory(
        weights=weights,
        gradients=state,
        optimizer=2 * state,
        activations=_activations(shape, values, budget),
        gathered=_gathered(shape, values, layers_trained=trained == everything),
        stepping=state,
        kept_while_rolling_out=kept,
        vllm=vllm,
        vllm_awake_in_training=0 if values("actor_rollout_ref.rollout.free_cache_engine") else vllm,
        vllm_weights=served,
        vllm_working=working,
        kv_cache=cache,
        kv_tokens=cache * min(tensor, shape.text.kv_heads) // shape.kv_bytes_per_token,
    )


def _host(
    shape: ModelShape, layout: Layout, values: VerlValues, episodes: int, mean_tokens: int, *, with_code: bool
) -> dict[str, int]:
    fsdp = "actor_rollout_ref.actor.fsdp_config."
    width = BYTES[str(values(f"{fsdp}model_dtype"))]
    everything, trained = _parameters(shape, values)
    policy = bool(values(f"{fsdp}offload_policy"))
    offloaded = everything * width if policy or values(f"{fsdp}param_offload") else 0
    offloaded += 2 * trained * width if policy or values(f"{fsdp}optimizer_offload") else 0
    # With tied embeddings every rank loads all of the model; otherwise one rank of each copy does.
    loaders = layout.gpus_per_node if shape.text.tied else max(1, layout.gpus_per_node // layout.shards)
    workers = math.ceil(values("actor_rollout_ref.rollout.agent.num_workers") / layout.nodes)
    found = {
        "the model, while it is loaded": shape.parameters * width * loaders,
        "offloaded weights and optimizer": offloaded * layout.gpus_per_node // layout.shards,
        "trainer ranks and vLLM servers": layout.gpus_per_node * _PROCESS_BYTES,
        "agent workers": workers * _WORKER_BYTES,
        "a step's episodes": math.ceil(episodes / layout.nodes) * mean_tokens * _TOKEN_BYTES,
    }
    if with_code:
        found["sandbox sessions"] = math.ceil(episodes / layout.nodes) * SESSION_BYTES
    if values("actor_rollout_ref.model.lora_rank"):
        found["a copy of the base weights, while adapters are merged"] = (
            shape.parameters * width * layout.gpus_per_node // layout.shards
        )
    return {name: size for name, size in found.items() if size}


def checkpoint_bytes(recipe: Recipe, *, gpus: int | None = None) -> int:
    """The size of one checkpoint of a recipe, as verl 0.9.1 writes it."""
    values, shape = VerlValues(recipe), shape_of(recipe.run.model)
    return _checkpoint(recipe.run.model, shape, layout_of(values, gpus), values)


def _checkpoint(model: str, shape: ModelShape, layout: Layout, values: VerlValues) -> int:
    contents = values("actor_rollout_ref.actor.checkpoint.save_contents")
    width = BYTES[str(values("actor_rollout_ref.actor.fsdp_config.model_dtype"))]
    everything, trained = _parameters(shape, values)
    size = layout.gpus * _EXTRA_BYTES if "extra" in contents else 0
    size += everything * width * layout.copies if "model" in contents else 0
    size += 2 * trained * width * layout.copies if "optimizer" in contents else 0
    # verl hands the full state to save_pretrained as it is: in the width it trains in.
    size += shape.parameters * width if "hf_model" in contents else 0
    return size + _small_files(Path(model))


def _small_files(model: Path) -> int:
    """Tokenizer, processor and configuration, which lie beside the weights."""
    if not model.is_dir():
        return _TOKENIZER_BYTES
    weights = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
    return sum(file.stat().st_size for file in model.iterdir() if file.is_file() and file.suffix not in weights)


def _disk(
    recipe: Recipe, shape: ModelShape, layout: Layout, values: VerlValues, assume: Assumptions, *, steps: int | None
) -> Disk:
    checkpoint = _checkpoint(recipe.run.model, shape, layout, values)
    keep, frequency = values("trainer.max_actor_ckpt_to_keep"), values("trainer.save_freq")
    saved = 0 if frequency <= 0 else math.ceil((steps or PUBLISHED_STEPS) / frequency)
    kept = saved if keep is None else min(saved, keep + 1)
    episodes = values("data.train_batch_size") * values("actor_rollout_ref.rollout.n")
    record = recipe.agent.record
    every = record.every if record.enabled else 0
    step = recorded_bytes(assume, episodes=episodes, max_pixels=record.max_pixels) * record.share / every if every else 0
    shown_px = min(assume.image_px, recipe.agent.image_max_pixels or assume.image_px)
    return Disk(
        checkpoint=checkpoint,
        checkpoints=kept * checkpoint,
        export=shape.parameters * 2 + _small_files(Path(recipe.run.model)),
        recording_step=round(step),
        recordings=round(step * (steps or PUBLISHED_STEPS)),
        images=sum(file.stat().st_size for file in find_data(recipe.run.train_files)),
        step_images=round(
            _STORED_STEPS * episodes * assume.calls * assume.observation_images * assume.observation_image_bytes
            + _STORED_STEPS * values("data.train_batch_size") * shown_px * _PNG_BYTES_PER_PX
        ),
    )


def recorded_bytes(assume: Assumptions, *, episodes: int, max_pixels: int | None = None) -> int:
    """What a step's recordings take: lines of JSON with packed ids and log-probabilities, and the images that tools made.

    Args:
        assume: How long episodes are.
        episodes: Of the step.
        max_pixels: `agent.record.max_pixels`: larger images are kept as JPEG of so many pixels.
    """
    turns = 1 + assume.calls
    context = assume.question_tokens + assume.calls * assume.observation_text_tokens
    text = (context + _REPLY_COPIES * assume.replies_tokens) * assume.chars_per_token
    packed = (context + assume.replies_tokens) * _ID_BYTES + assume.replies_tokens * _LOGPROB_BYTES
    line = _LINE_BYTES + turns * _TURN_BYTES + text + packed
    image = assume.observation_image_bytes
    if max_pixels is not None:
        image = min(image, round(max_pixels * _JPEG_BYTES_PER_PX))
    images = assume.calls * assume.observation_images * image
    return round(episodes * (line + images))
