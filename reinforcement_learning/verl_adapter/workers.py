"""verl's agent workers and their manager, with what episodes need: `rollout.agent.agent_loop_manager_class`."""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ


class EpisodeWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """One process that plays episodes."""


class EpisodeManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Starts the workers and gives them prompts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(EpisodeWorker)
