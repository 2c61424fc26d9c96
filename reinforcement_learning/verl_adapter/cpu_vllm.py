"""vLLM's side of a weight update on a CPU: `rollout.engine_kwargs.vllm.worker_extension_cls`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def refresh_tied_heads(model: torch.nn.Module) -> int:
    """Pack the weights of tied language-model heads again after a reload.

    With `tie_word_embeddings` a checkpoint holds no `lm_head`, so vLLM's reload passes it over; on a CPU that layer
    computes with a packed *copy* of the embedding, which then keeps the old weights for ever. Without this the
    log-probabilities of rollout and training drift apart by 0.12 on perturbed weights; with it, 1e-5.

    Returns:
        Number of heads refreshed.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    tied_to = {
        module.weight.data_ptr()
        for module in model.modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    tied = [head for head in heads if head.weight.data_ptr() in tied_to]
    for head in tied:
        head.quant_method.process_weights_after_loading(head)
    return len(tied)


def forget_expert_kernels(model: torch.nn.Module) -> int:
    """Have vLLM set up the kernels of experts anew at the reload that follows.

    On a CPU they compute with packed weights, and vLLM 0.28 packs them with the kernel, once: a layer that has its kernel
    takes later weights unpacked and reads them as if they were not. Without this the log-probabilities of rollout and
    training have nothing to do with each other (0.0009 was their correlation).

    Returns:
        Number of layers with experts.
    """
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    methods = [getattr(module, "quant_method", None) for module in model.modules()]
    found = [method for method in methods if isinstance(method, UnquantizedFusedMoEMethod)]
    for method in found:
        method.moe_kernel = None
    return len(found)


def load_weights(runner: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Reload through vLLM's own loader: its CPU layers replace their weights by packed ones after loading, so verl's way of
    loading into the live model does not reach them.

    Args:
        runner: vLLM's model runner.
        weights: All of them, by the names of a checkpoint.
    """
    forget_expert_kernels(runner.get_model())
    runner.reload_weights(weights_iterator=iter(weights), is_checkpoint_format=True)
    refresh_tied_heads(runner.get_model())


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Receives new weights from the trainer."""

    def update_weights_from_ipc(self, peft_config: Any = None, base_sync_done: bool = False, use_shm: bool = False) -> None:
        """Load what the trainer sends."""
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

        if peft_config:
            raise ValueError("LoRA adapters are not synchronised on a CPU; train all parameters there")
        received: list[tuple[str, torch.Tensor]] = []

        def keep(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            # The tensors are views of shared memory that is unmapped afterwards.
            received.extend((name, tensor.clone()) for name, tensor in weights)

        receiver = BucketedWeightReceiver(self._get_zmq_handle(), device=self.device, use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=keep)
        load_weights(self.model_runner, received)
