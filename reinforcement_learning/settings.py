"""The `agent:` block of an RL recipe: the agent as everywhere, and how its rollouts are scored, recorded and waited for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.recorder import RecordSettings
from agent.settings import AgentSettings
from judge.manners import Spelling
from reinforcement_learning.failed_groups import FailedGroups
from reinforcement_learning.outages import OutageSettings, SandboxOutageSettings
from reinforcement_learning.rewards import RewardWeights


class JudgeBlock(BaseModel):
    """`agent.judge:`; see judge/client.py. Addresses come from LLM_AS_A_JUDGE_BASE, the key from JUDGE_API_KEY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    model: str = "judge"
    prompt: str = "consistency"
    """For all data but `reason`, which is asked for equivalence."""
    strict_rules: bool = False
    log_only: bool = False
    """Rules alone decide; what the LLM says is only recorded with each rollout, as `second_opinion`."""
    structured_output: Spelling = "choice"
    """How the judge is held to its two words; `json_schema` for hosted models."""
    max_reply_tokens: int = Field(2048, ge=1)
    """Of a judge that is not held to them, or thinks."""
    strictness: Literal["strict", "lenient"] = "strict"
    votes: int = Field(1, ge=1)
    cache: str | None = None
    timeout_s: float = Field(60.0, gt=0)
    patience_s: float = Field(60.0, ge=0)
    max_in_flight: int = Field(64, ge=1)


class RolloutSettings(AgentSettings):
    """How rollouts are made and scored; read by every rollout worker."""

    judge: JudgeBlock = JudgeBlock()
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
    record_directory: str | None = None
    """Every rollout is written here; None records nothing."""
