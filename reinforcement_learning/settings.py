"""The `agent:` block of an RL recipe: the agent as everywhere, and how its rollouts are scored, recorded and waited for."""

from __future__ import annotations

from pydantic import field_validator

from agent.recorder import RecordSettings
from agent.settings import AgentSettings
from judge.client import JudgeSettings
from reinforcement_learning.failed_groups import FailedGroups
from reinforcement_learning.outages import OutageSettings, SandboxOutageSettings
from reinforcement_learning.rewards import RewardWeights
from reinforcement_learning.samples import TrackedEpisodes


class RolloutSettings(AgentSettings):
    """How rollouts are made and scored; read by every rollout worker."""

    judge: JudgeSettings = JudgeSettings()
    """Who decides; see judge/client.py. `prompt` is for all data but `reason`, which is asked for equivalence. Addresses
    come from LLM_AS_A_JUDGE_BASE, the key from JUDGE_API_KEY."""
    judge_outage: OutageSettings = OutageSettings()
    """When scoring waits for a judge that is away, and how long."""
    failed_groups: FailedGroups = FailedGroups()
    """What becomes of groups of which rollouts were lost, and when that ends the run."""
    reward: RewardWeights = RewardWeights()
    """Weights and options of the rewards; the published ones by default."""
    sandbox_outage: SandboxOutageSettings = SandboxOutageSettings()
    """How rollouts wait for sandboxes that are away, and are played again."""
    record: RecordSettings = RecordSettings()
    """Which rollouts are recorded, and how exactly."""
    samples: TrackedEpisodes = TrackedEpisodes()
    """How many episodes the trackers show with their images, and how often."""
    record_directory: str | None = None
    """Every rollout is written here; None records nothing."""

    @field_validator("judge")
    @classmethod
    def _no_key(cls, judge: JudgeSettings) -> JudgeSettings:
        # It would stand in the run's folder, and reach the workers in no other way.
        if judge.api_key is not None:
            raise ValueError("a key does not stand in a recipe; set JUDGE_API_KEY on every node")
        return judge
