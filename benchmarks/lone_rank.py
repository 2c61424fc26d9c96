"""One training rank of a recipe on one GPU, or on a CPU, without weights and without the other ranks; for benchmarks."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reinforcement_learning.plan_values import GIB
from reinforcement_learning.recipe import Recipe


class Card:
    """Memory of the GPU, in bytes; zero on a CPU, where torch does not count it."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self.device = torch.device("cuda", 0) if self._cuda else torch.device("cpu")

    def begin(self) -> float:
        """Forget earlier peaks. Returns the time."""
        if self._cuda:
            self._cuda.synchronize()
            self._cuda.reset_peak_memory_stats()
        return time.perf_counter()

    def end(self) -> tuple[float, int]:
        """The time, and the largest memory since `begin`."""
        if not self._cuda:
            return time.perf_counter(), 0
        self._cuda.synchronize()
        return time.perf_counter(), int(self._cuda.max_memory_allocated())

    def allocated(self) -> int:
        """The memory that tensors take now."""
        return int(self._cuda.memory_allocated()) if self._cuda else 0

    def reserved(self) -> int:
        """What the allocator holds of the card: tensors, and what it keeps for the next ones. Never less before `empty`."""
        return int(self._cuda.memory_reserved()) if self._cuda else 0

    def outside_torch(self) -> int:
        """What the process takes beside torch's allocator: CUDA itself and the libraries' work space."""
        if not self._cuda:
            return 0
        free, total = self._cuda.mem_get_info()
        return int(total - free - self._cuda.memory_reserved())

    def empty(self) -> None:
        """Give back what is not in use."""
        if self._cuda:
            self._cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        """Which card, with which software."""
        import torch
        import transformers

        found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__, "card": "none: a CPU"}
        if self._cuda:
            properties = self._cuda.get_device_properties(0)
            found |= {"card": properties.name, "total_gib": round(properties.total_memory / GIB, 2)}
        return found


@contextmanager
def process_group(world: int) -> Iterator[None]:
    """This process as rank 0 of so many; with more than one, the others do not exist."""
    import torch
    import torch.distributed as dist

    if world == 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
        # Torch's fake leaves the output as it was allocated; with whatever lies there the gradients would not be finite.
        dist.reduce_scatter_tensor = _keep_own_part
    try:
        yield
    finally:
        dist.destroy_process_group()


def _keep_own_part(output: Any, input: Any, *_: Any, **__: Any) -> None:
    output.copy_(input.view(-1)[: output.numel()].view_as(output))


def draw_weights(module: Any, _state: Any, _mesh: Any = None, cpu_offload: Any = None) -> None:
    """Draw random weights of the usual size for this rank's shards, where verl would load a state."""
    import torch

    device = torch.device("cpu") if cpu_offload is not None else Card().device
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    if any(parameter.is_meta for parameter in module.parameters()):
        module.to_empty(device=device)
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shard = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if parameter.ndim > 1:
                shard.normal_(0.0, 0.02)
            else:
                shard.fill_(0.0 if name.endswith("bias") else 1.0)


@contextmanager
def _without_weights() -> Iterator[None]:
    """`from_pretrained` makes an empty model, and what verl would load into it is drawn."""
    import torch
    import verl.workers.engine.fsdp.transformer_impl as implementation
    from accelerate import init_empty_weights
    from transformers import AutoModelForImageTextToText as Auto

    def empty(*_: Any, config: Any, torch_dtype: Any, **__: Any) -> Any:
        # Tied weights would be two after leaving the meta device, and adapters cannot be drawn there.
        with torch.device(Card().device) if config.tie_word_embeddings else init_empty_weights():
            return Auto.from_config(config, dtype=torch_dtype)

    loads, reads = implementation.fsdp2_load_full_state_dict, Auto.__dict__.get("from_pretrained")
    implementation.fsdp2_load_full_state_dict = draw_weights
    Auto.from_pretrained = empty
    try:
        yield
    finally:
        implementation.fsdp2_load_full_state_dict = loads
        if reads is None:
            del Auto.from_pretrained
        else:
            Auto.from_pretrained = reads


class Rank:
    """verl's engine for one rank of a recipe.

    Args:
        recipe: With `run.model` a folder of `write_model`.
    """

    def __init__(self, recipe: Recipe) -> None:
        from verl.utils.config import omega_conf_to_dataclass
        from verl.utils.device import set_expandable_segments
        from verl.workers.engine import EngineRegistry
        from verl.workers.utils.losses import ppo_loss

        from reinforcement_learning.verl_adapter.launch import compose_config

        verl = compose_config(recipe.verl, recipe.verl_extra).actor_rollout_ref
        verl.model.path = recipe.run.model
        self.model, self.actor = omega_conf_to_dataclass(verl.model), omega_conf_to_dataclass(verl.actor)
        self.config = self.model.hf_config
        self._loss = functools.partial(ppo_loss, config=self.actor)
        self._common = {
            "use_remove_padding": self.model.use_remove_padding,
            "use_fused_kernels": self.model.use_fused_kernels,
            "use_dynamic_bsz": verl.actor.use_dynamic_bsz,
            "temperature": verl.rollout.temperature,
        }
        self._training = {
            "max_token_len_per_gpu": verl.actor.ppo_max_token_len_per_gpu,
            "micro_batch_size_per_gpu": verl.actor.ppo_micro_batch_size_per_gpu,
            "calculate_entropy": False,
        }
        self._inference = {
            "max_token_len_per_gpu": verl.rollout.log_prob_max_token_len_per_gpu,
            "micro_batch_size_per_gpu": verl.rollout.log_prob_micro_batch_size_per_gpu,
            "calculate_entropy": True,
        }
        self.engine = EngineRegistry.new(
            model_type="language_model",
            backend=self.actor.engine.strategy,
            model_config=self.model,
            engine_config=self.actor.engine,
            optimizer_config=self.actor.optim,
            checkpoint_config=self.actor.checkpoint,
        )
        with _without_weights():
            self.engine.initialize()
        # As in verl's worker from the first hand-over of weights to vLLM on; without it a third more of the card is taken.
        set_expandable_segments(True)

    def update(self, data: Any, card: Card) -> dict[str, Any]:
        """One update of the policy; what its passes and its optimizer's step took.

        Returns:
            `seconds`, `passes_s`, `step_s`, `grad_norm`, and bytes: `kept` after a forward pass, the largest in `forward`,
            `backward` (`passes` is the larger of these) and `step`, and `states`, which are there after the step.
        """
        found: dict[str, Any] = {"kept": 0, "forward": 0, "backward": 0}
        step, forward = self.engine.optimizer_step, self.engine.forward_step

        def measured_forward(*arguments: Any, **named: Any) -> Any:
            found["backward"] = max(found["backward"], card.end()[1])
            card.begin()
            output = forward(*arguments, **named)
            found["forward"] = max(found["forward"], card.end()[1])
            found["kept"] = max(found["kept"], card.allocated())
            card.begin()
            return output

        def measured_step() -> float:
            end, peak = card.end()
            found["backward"] = max(found["backward"], peak)
            found["passes"], found["passes_s"] = max(found["forward"], found["backward"]), end - begun
            started = card.begin()
            found["grad_norm"] = float(step())
            end, found["step"] = card.end()
            found["step_s"], found["states"] = end - started, card.allocated()
            return float(found["grad_norm"])

        self._assign(data, self._common | self._training | {"global_batch_size": len(data)})
        with self.engine.train_mode():
            self.engine.optimizer_step, self.engine.forward_step = measured_step, measured_forward
            begun = card.begin()
            try:
                self.engine.train_batch(data, loss_function=self._loss)
            finally:
                del self.engine.optimizer_step, self.engine.forward_step
        return found | {"seconds": found["passes_s"] + found["step_s"]}

    def log_probs(self, data: Any, card: Card) -> dict[str, Any]:
        """The log-probabilities of a batch, as verl has them computed before it trains.

        Returns:
            `seconds`, `passes` (bytes at most), and `log_probs`, nested [num_rows, tokens of the row].
        """
        self._assign(data, self._common | self._inference)
        with self.engine.eval_mode():
            begun = card.begin()
            output = self.engine.infer_batch(data)
            end, peak = card.end()
        return {"seconds": end - begun, "passes": peak, "log_probs": output["model_output"]["log_probs"]}

    @staticmethod
    def _assign(data: Any, values: dict[str, Any]) -> None:
        from verl.utils import tensordict_utils as tu

        tu.assign_non_tensor(data, **values)
