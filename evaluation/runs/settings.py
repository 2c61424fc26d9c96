"""What decides a run's numbers, and what of an episode is scored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.prompts import Prompt, load_prompt
from agent.search.gateway import usable_tools
from agent.tools import ToolSettings

Mode = Literal["agent", "agent-no-search", "agent-blind", "direct", "think"]
MODES: tuple[Mode, ...] = ("agent", "agent-no-search", "agent-blind", "direct", "think")
_SEARCH_TOOLS = frozenset(["search", "image_search", "fetch_page"])


class RunSettings(BaseModel):
    """Everything that decides a run's numbers; a folder is resumed only with equal settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    data: str
    model: str
    """Name or folder, for the record; the address is not part of a run's identity."""
    mode: Mode = "agent"
    """`agent`: with tools. `agent-no-search`: with code alone. `agent-blind`: tools run, but what they return is withheld.
    `think`: no tools, thinking asked for. `direct`: the bare question."""
    prompt: str
    """Of agent/prompts, for the modes with tools."""
    tools: tuple[str, ...] = ("python",)
    search: dict[str, Any] | None = None
    """A block as in RL recipes, for the tools `search` and `fetch_page`; mode and provider are part of a run's identity."""
    image_search: dict[str, Any] | None = None
    max_turns: int = Field(9, ge=1)
    max_reply_tokens: int = Field(8192, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1)
    """Episodes for each item; more than one gives mean@k and pass@k, and wants a temperature."""
    seed: int | None = None
    """Of sampling; sample i of every item gets seed + i."""
    primer: str = ""
    image_max_pixels: int | None = Field(None, ge=3136)
    """Images of the question are shrunk to it before the model sees them; the sandbox gets the originals. The command
    line has the number of agent/shared.yaml here unless it says another."""
    python_timeout_s: float = Field(60.0, gt=0)
    """Source of the default: DeepEyesV2 0373e6e, its evaluation fork."""
    predictions: str | None = None
    """A file of answers that another harness got; nothing is asked then."""
    limit: int | None = Field(None, ge=1)
    """First so many items only."""

    @property
    def tools_on(self) -> tuple[str, ...]:
        """The tools of an episode, without those whose source is off."""
        if self.mode in ("direct", "think"):
            return ()
        tools = usable_tools(self.tools, self.search, self.image_search)
        return tuple(name for name in tools if self.mode != "agent-no-search" or name not in _SEARCH_TOOLS)

    @property
    def search_mode(self) -> str:
        """`live`, `record`, `replay` … of the search tools that are on; `none` without any."""
        blocks = {"search": self.search, "fetch_page": self.search, "image_search": self.image_search}
        modes = {str((blocks[name] or {}).get("mode", "live")) for name in self.tools_on if name in _SEARCH_TOOLS}
        return "+".join(sorted(modes)) or "none"

    @property
    def tool_settings(self) -> ToolSettings:
        """What tools keep and the prompt promises."""
        return ToolSettings(python_timeout_s=self.python_timeout_s)

    def load_prompt(self) -> Prompt:
        """The prompt of the mode, with the tools that are on."""
        name = self.mode if self.mode in ("direct", "think") else self.prompt
        return load_prompt(name, tools=self.tools_on, settings=self.tool_settings)






