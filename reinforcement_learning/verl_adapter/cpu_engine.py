"""verl's FSDP2 engine on a CPU; registered by `model_plugin`."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from reinforcement_learning.verl_adapter.pixels import MakesPixels


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")
class CpuFsdpEngine(MakesPixels, FSDPEngineWithLMHead):
    """The engine as it is, for device "cpu"."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> Any:
        # Two threads gained 1.3x alone and stalled for 47 s beside vLLM (measured 2026-11-22, 2 cores).
        torch.set_num_threads(1)
        # forward_only, set for a reference model, asks for pinned memory, and there is no accelerator to pin for.
        forward_only = self.engine_config.forward_only
        object.__setattr__(self.engine_config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(self.engine_config, "forward_only", forward_only)
