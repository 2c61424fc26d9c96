"""The `agent:` block of an RL recipe: what an episode of training looks like."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class JudgeBlock(BaseModel):
    """`agent.judge:`. Addresses come from LLM_AS_A_JUDGE_BASE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_urls: tuple[str, ...] = ()
    model: str = "judge"
    prompt: str = "consistency"
    strict_rules: bool = False
    timeout_s: float = Field(60.0, gt=0)
    max_in_flight: int = Field(64, ge=1)


class AgentSettings(BaseModel):
    """How rollouts are made and scored; read by every rollout worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: tuple[str, ...] = ("python", "search", "image_search")
    """By the names of their files in agent/tools."""
    max_turns: int = Field(9, ge=1)
    max_reply_tokens: int = Field(8192, ge=1)
    episode_deadline_s: float | None = Field(None, gt=0)
    primer: str = "<think>"
    """Put before each reply that follows an observation; empty for none."""
    image_max_pixels: int | None = Field(None, ge=3136)
    """Larger images are shrunk before the model sees them; the sandbox always gets the original."""
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
    record_directory: str | None = None
    """Every rollout is written here; None records nothing."""
