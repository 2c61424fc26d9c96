"""verl's FSDP engine on GPUs, with pixels made on the rank; registered by `model_plugin`."""

from __future__ import annotations

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from reinforcement_learning.verl_adapter.pixels import MakesPixels


# verl looks for an engine of the device's vendor before the one of the device, which is its own.
@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"])
class EpisodeFsdpEngine(MakesPixels, FSDPEngineWithLMHead):  # type: ignore[misc]
    """The engine as it is, for rows that hold references to images."""
