"""Loaded by verl where a model is built (`verl.actor_rollout_ref.model.external_lib`)."""

import os

from reinforcement_learning.verl_adapter import gpu_engine, patches  # noqa: F401  registers the engine

if os.environ.get("VERL_PLATFORM") == "cpu":
    from reinforcement_learning.verl_adapter import cpu_engine  # noqa: F401

patches.apply_to_model()
