"""The `agent:` block of an RL recipe: what an episode of training looks like."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.episode import EpisodeLimits
from agent.recorder import RecordSettings
from agent.search.gateway import usable_tools
from agent.tools import ToolSettings
from reinforcement_learning.failed_groups import FailedGroups
from reinforcement_learning.outages import OutageSettings, SandboxOutageSettings
from reinforcement_learning.rewards import RewardWeights


class JudgeBlock(BaseModel):
    """`agent.judge:`; see judge/client.py. Addresses come from LLM_AS_A_JUDGE_BASE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    model: str = "judge"
    prompt: str = "consistency"
    """For all data but `reason`, which is asked for equivalence."""
    strict_rules: bool = False
    log_only: bool = False
    """Rules alone decide; what the LLM says is only recorded with each rollout, as `second_opinion`."""
    structured_output: Literal["choice", "none"] = "choice"
    strictness: Literal["strict", "lenient"] = "strict"
    votes: int = Field(1, ge=1)
    cache: str | None = None
    timeout_s: float = Field(60.0, gt=0)
    patience_s: float = Field(60.0, ge=0)
    max_in_flight: int = Field(64, ge=1)


class AgentSettings(BaseModel):
    """How rollouts are made and scored; read by every rollout worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: tuple[str, ...] = ("python", "search", "image_search")
    """By the names of their files in agent/tools."""
    max_turns: int = Field(9, ge=1)
    max_reply_tokens: int = Field(8192, ge=1)
    episode_deadline_s: float | None = Field(None, gt=0)
    """Seconds that the model's programs may run in one episode; waiting does not count. Set it, if at all, to more than the
    longest reply takes: a single wait that is longer is an outage."""
    reply_deadline_s: float | None = Field(3600.0, gt=0)
    """An engine that takes longer for one reply is away: the rollout is lost, not scored."""
    primer: str = "<think>"
    """Put before each reply that follows an observation; empty for none."""
    image_max_pixels: int | None = Field(None, ge=3136)
    """Larger images are shrunk before the model sees them; the sandbox always gets the original."""
    max_episode_tokens: int | None = Field(None, ge=1)
    """Sampled tokens of all replies of an episode; None leaves it to verl.data.max_response_length."""
    max_calls: dict[str, int] = {"image_search": 1}
    """Calls of a tool that may succeed in an episode."""
    max_in_flight: dict[str, int] = {}
    """Uses at once per rollout worker: `policy`, or a tool's name."""
    prompt: str | None = None
    """Of agent/prompts, for rows that bring no system message of their own; None leaves rows as they are."""
    any_image: bool = False
    """Lets `image_search` take other images than the first; see agent/tools/image_search.py."""
    page_chars: int = Field(6000, ge=100)
    """Of a page opened with `fetch_page`."""
    python_timeout_s: float = Field(200.0, gt=0)
    max_hits: int = Field(5, ge=1)
    sandbox_urls: tuple[str, ...] = ("http://127.0.0.1:8000",)
    """From CODE_SANDBOX_URL. One server a node, each rollout worker calling its own host, is the published advice."""
    max_sandbox_calls: int = Field(32, ge=1)
    """In flight per rollout worker."""
    search: dict[str, Any] | None = None
    """`{provider: <file in agent/search>, …its settings}`; needed by the tool `search`."""
    image_search: dict[str, Any] | None = None
    """The same for `image_search`."""
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

    @property
    def tool_settings(self) -> ToolSettings:
        """What tools keep and prompts promise."""
        return ToolSettings(
            python_timeout_s=self.python_timeout_s,
            max_hits=self.max_hits,
            page_chars=self.page_chars,
            any_image=self.any_image,
            max_calls=self.max_calls,
        )

    @property
    def tools_on(self) -> tuple[str, ...]:
        """The tools without those whose source has `mode: off`."""
        return usable_tools(self.tools, self.search, self.image_search)

    @property
    def episode_limits(self) -> EpisodeLimits:
        """When a rollout is cut short."""
        return EpisodeLimits(
            max_turns=self.max_turns,
            max_calls=self.max_calls,
            max_tokens=self.max_episode_tokens,
            deadline_s=self.episode_deadline_s,
            reply_deadline_s=self.reply_deadline_s,
        )
