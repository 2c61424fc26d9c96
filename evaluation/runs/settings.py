"""What decides a run's numbers, and what of an episode is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from agent.prompts import Prompt
from agent.settings import AgentSettings
from agent.setup import prompt_of
from code_sandbox.redaction import redacted

Mode = Literal["agent", "agent-no-search", "agent-blind", "direct", "think"]
_FREE = frozenset({"benchmark", "data", "model", "mode", "samples", "seed", "predictions", "limit"})
"""What runs are compared over, or what is compared by other means."""
_OF_IMPORTED = frozenset({"benchmark", "data", "model", "samples", "predictions", "limit"})
"""What is known of a run whose answers were imported: how the model was asked is not."""
_SEARCH_TOOLS = frozenset(["search", "image_search", "fetch_page"])


class EvaluationSettings(AgentSettings):
    """Everything that decides a run's numbers; a folder is resumed only with equal settings.

    `tools`, `prompt` and `primer` are those of the modes with tools; `agent` has what a mode makes of them.
    """

    benchmark: str
    data: str
    model: str
    """Name or folder, for the record; the address is not part of a run's identity."""
    mode: Mode = "agent"
    """`agent`: with tools. `agent-no-search`: with code alone. `agent-blind`: tools run, but what they return is withheld.
    `think`: no tools, thinking asked for. `direct`: the bare question."""
    temperature: float = Field(0.0, ge=0)
    """Of sampling; at 0 the likeliest token is taken, as in the published evaluation."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of sampling: from the likeliest tokens that have this share together."""
    samples: int = Field(1, ge=1)
    """Episodes for each item; more than one gives mean@k and pass@k, and wants a temperature."""
    seed: int | None = None
    """Of sampling; sample i of every item gets seed + i."""
    predictions: str | None = None
    """A file of answers that another harness got; nothing is asked then."""
    limit: int | None = Field(None, ge=1)
    """First so many items only."""

    outage_attempts: int = Field(3, ge=1)
    """How often an episode is played that an outage ends; the last time alone, so that no neighbour is to blame."""
    repeated_outage: Literal["not_evaluated", "wrong"] = "not_evaluated"
    """What becomes of an item whose every attempt an outage ended, while other items were answered. `not_evaluated`: it is
    called by name, and the same command asks it again. `wrong`: it is scored 0 and not asked again, for where a model's own
    program may be what ends the server."""

    @property
    def imported(self) -> bool:
        """Whether its answers come from a file."""
        return self.predictions is not None

    @property
    def way(self) -> str:
        """How its answers were had, in a word."""
        return "imported" if self.imported else self.mode

    @property
    def agent(self) -> AgentSettings:
        """The agent as the mode has it."""
        given = {name: getattr(self, name) for name in AgentSettings.model_fields}
        if self.mode in ("direct", "think"):
            given |= {"tools": (), "prompt": self.mode, "primer": ""}
        elif self.mode == "agent-no-search":
            given["tools"] = tuple(name for name in self.tools if name not in _SEARCH_TOOLS)
        return AgentSettings.model_validate(given)

    @property
    def search_mode(self) -> str:
        """`live`, `record`, `replay` … of the search tools that are on; `none` without any."""
        blocks = {"search": self.search, "fetch_page": self.search, "image_search": self.image_search}
        tools = self.agent.tools_on
        modes = {str((blocks[name] or {}).get("mode", "live")) for name in tools if name in _SEARCH_TOOLS}
        return "+".join(sorted(modes)) or "none"

    def load_prompt(self) -> Prompt | None:
        """The prompt of the mode, with the tools that are on; none if nothing is asked."""
        return None if self.imported else prompt_of(self.agent)

    @property
    def recorded(self) -> Mapping[str, object]:
        """Settings by name that a result depends on, as JSON; passwords in the addresses of search are not written down."""
        known = set(_OF_IMPORTED) if self.imported else None
        return redacted(self.model_dump(mode="json", include=known, exclude=set(self.PLACES)))

    @property
    def compared(self) -> Mapping[str, object]:
        """Settings by name that two runs must have in common for their scores to be about the model, or the mode, alone."""
        answers = {"answers": "imported" if self.imported else "asked for here"}
        return answers | {name: value for name, value in self.recorded.items() if name not in _FREE}
