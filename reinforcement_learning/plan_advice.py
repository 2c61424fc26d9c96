"""What a plan warns of: values that cannot work together, and machines that are too small for them."""

from __future__ import annotations

from collections.abc import Iterator

from reinforcement_learning.plan import Plan
from reinforcement_learning.plan_values import GIB, PUBLISHED_STEPS, Assumptions, VerlValues, image_tokens
from reinforcement_learning.recipe import Recipe

_CONTEXT_BYTES = 2 * GIB
"""CUDA's and NCCL's own, of two processes on one GPU; docs/results.md has 0.8 to 1.3 for one of them."""
DEFAULT_MAX_SESSIONS = 256
"""Of a sandbox server; code_sandbox/server/settings.py."""
_LARGE_PX = 3840 * 2160


def advice(plan: Plan, recipe: Recipe, assume: Assumptions | None = None) -> list[str]:
    """What to change or to know before this recipe is started; each line names the key."""
    values, assume = VerlValues(recipe), assume or Assumptions()
    return [
        *contradictions(plan),
        *_batches(plan, values),
        *_memory(plan, assume),
        *_cache(plan),
        *_disk(plan, values),
        *_services(plan, recipe),
    ]


def contradictions(plan: Plan) -> list[str]:
    """Values that end a run when it starts or at its first long episode; each line names the key."""
    layout, found = plan.layout, []
    tensor = layout.tensor_parallel
    if plan.token_budget < plan.longest_tokens:
        found.append(
            f"verl.actor_rollout_ref.actor.ppo_max_token_len_per_gpu {plan.token_budget:,} is less than an episode may have "
            f"({plan.longest_tokens:,}: max_prompt_length + max_response_length); the first one that long ends the run"
        )
    if layout.gpus % layout.shards:
        found.append(
            f"verl.actor_rollout_ref.actor.fsdp_config.fsdp_size {layout.shards} does not divide {layout.gpus} GPUs"
        )
    if layout.gpus % tensor or plan.shape.text.heads % tensor:
        found.append(
            f"verl.actor_rollout_ref.rollout.tensor_model_parallel_size {tensor} must divide {layout.gpus} GPUs and "
            f"{plan.shape.text.heads} attention heads"
        )
    return found


def _batches(plan: Plan, values: VerlValues) -> Iterator[str]:
    layout = plan.layout
    mini = values("actor_rollout_ref.actor.ppo_mini_batch_size")
    for key, prompts in (
        ("data.train_batch_size", values("data.train_batch_size")),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", mini),
    ):
        if prompts * values("actor_rollout_ref.rollout.n") % layout.gpus:
            yield (
                f"{key} {prompts} x rollout.n {values('actor_rollout_ref.rollout.n')} is no multiple of {layout.gpus} GPUs; "
                "verl pads each batch"
            )
    if mini > values("data.train_batch_size"):
        yield f"ppo_mini_batch_size {mini} is larger than train_batch_size {values('data.train_batch_size')}"
    if plan.rows is not None and plan.steps_per_epoch == 0:
        yield f"{plan.rows} rows are fewer than data.train_batch_size {values('data.train_batch_size')}: no step at all"


def _memory(plan: Plan, assume: Assumptions) -> Iterator[str]:
    if plan.gpu is None:
        return
    room = assume.gpu_bytes - _CONTEXT_BYTES
    if plan.gpu.training > room:
        yield (
            f"training needs {plan.gpu.training / GIB:.0f} GiB of {room / GIB:.0f} on a GPU: lower "
            "actor.ppo_max_token_len_per_gpu, set model.use_fused_kernels, or take more GPUs"
        )
    if plan.gpu.rolling_out > room:
        yield (
            f"rollouts need {plan.gpu.rolling_out / GIB:.0f} GiB of {room / GIB:.0f} on a GPU: lower "
            "rollout.gpu_memory_utilization, or set actor.fsdp_config.param_offload and optimizer_offload"
        )


def _cache(plan: Plan) -> Iterator[str]:
    if plan.gpu is None:
        return
    each = plan.episodes / plan.layout.replicas
    fit = plan.gpu.kv_tokens // plan.episode_tokens
    if plan.gpu.kv_tokens < plan.longest_tokens:
        yield (
            f"the KV cache holds {plan.gpu.kv_tokens:,} tokens, less than one longest episode ({plan.longest_tokens:,}): "
            "raise rollout.gpu_memory_utilization or tensor_model_parallel_size, or lower max_num_batched_tokens"
        )
    elif fit < each:
        yield (
            f"the KV cache of a replica holds {fit} episodes of {plan.episode_tokens:,} tokens, and {each:.0f} are in "
            "flight there: the others wait for their turn (agent.max_in_flight.policy), or lose their prefix"
        )


def _disk(plan: Plan, values: VerlValues) -> Iterator[str]:
    if values("trainer.save_freq") > 0 and values("trainer.max_actor_ckpt_to_keep") is None:
        yield (
            "trainer.max_actor_ckpt_to_keep is not set: all checkpoints stay, "
            f"{plan.disk.checkpoints / 1e9:,.0f} GB; set it to 2"
        )
    if plan.layout.copies > 1 and "model" in values("actor_rollout_ref.actor.checkpoint.save_contents"):
        yield (
            f"a checkpoint holds the states {plan.layout.copies} times, once for each group of {plan.layout.shards} GPUs "
            f"({plan.disk.checkpoint / 1e9:,.0f} GB): verl 0.9.1 saves every rank; actor.fsdp_config.fsdp_size=-1 saves one"
        )
    if plan.steps is None:
        yield f"the data is not here, so the number of steps is not known; disk is reckoned for {PUBLISHED_STEPS}"


def _services(plan: Plan, recipe: Recipe) -> Iterator[str]:
    node = -(-plan.sessions // plan.layout.nodes)
    if node > DEFAULT_MAX_SESSIONS:
        yield (
            f"{plan.sessions:,} episodes may each hold a sandbox session, {node:,} a node; a server has "
            f"{DEFAULT_MAX_SESSIONS} unless told: deepeyes sandbox serve --max-sessions {node}"
        )
    cap = recipe.agent.image_max_pixels
    prompt = VerlValues(recipe)("data.max_prompt_length")
    large = image_tokens(min(_LARGE_PX, cap or _LARGE_PX), plan.shape.factor_px)
    if plan.gpu is not None and large > prompt:
        yield (
            f"agent.image_max_pixels is {cap}: a 3840x2160 picture is {large:,} tokens, over "
            f"data.max_prompt_length {prompt:,}; such rows are left out"
        )
