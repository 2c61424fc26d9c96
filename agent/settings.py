"""Everything that decides what an episode is: what the model is told and shown, what its tools keep, and when it ends.

Training reads it as `agent:` of a recipe, evaluation and chat from the command line; each setting stands here once, under
one name, with one default. Where the published programs differ, the setting says so: the defaults follow training, so that
a model is asked as it was trained, and evaluation/recipes/published.yaml has what the published evaluation did instead.

Source of what is called published: DeepEyesV2 0373e6e. Training is verl/workers/agent/envs/deepeyesv2/deepeyesv2.py and
run_qwen2_5_vl-7b_final_allin.sh in its reinforcement_learning/, evaluation is vlmeval/api/vllm_api.py and agent_utils.py,
the demo inference_demo.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.recipes import shared_value
from code_sandbox.redaction import redacted
from code_sandbox.wire import MAX_CHARS, MAX_IMAGES, MAX_TIMEOUT_S

OLD_NAMES = {
    "max_pixels": "image_max_pixels",
    "deadline_s": "episode_deadline_s",
    "max_tokens": "max_episode_tokens",
    "sandbox_url": "sandbox_urls",
    "search_index": "search",
    "image_folder": "image_search",
}
"""Names that settings had before -> those that they have now, in recipes, on command lines and in the records of runs."""

_OFF = ("off", False)
"""YAML reads the bare word as false."""
_SOURCES = {"search": "search", "fetch_page": "search", "image_search": "image_search"}
"""Tool -> the block that it needs."""
Count = Annotated[int, Field(ge=1)]


class McpHeader(BaseModel):
    """A header of each request to a server of tools, whose value the environment holds and no recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Such as Authorization."""
    variable: str
    """Of the environment; it holds the whole value, such as `Bearer …`."""


class McpServer(BaseModel):
    """A server of the Model Context Protocol, whose tools the model may call: a program that is started, or an address."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    command: tuple[str, ...] = ()
    """Program and arguments of a server that speaks through its standard input and output. Each episode that calls it has a
    process of its own."""
    url: str | None = None
    """Of a server that speaks streamable HTTP, such as http://127.0.0.1:8931/mcp. Each episode that calls it has a session
    of its own."""
    env: tuple[str, ...] = ()
    """Variables of our environment that the program gets, by name, besides PATH, HOME and the like. Keys go here."""
    headers: tuple[McpHeader, ...] = ()
    """Of each request: `[{name: Authorization, variable: WEATHER_LOGIN}]`."""
    offer: tuple[str, ...] | None = None
    """The server's tools that the model is told of; null is all."""
    prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")
    """Put before the names of its tools, where two servers have one of the same name, or one is called as a tool of ours."""
    call_timeout_s: float = Field(60.0, gt=0)
    """Of one call, and of opening a session. Longer is an outage."""
    max_result_bytes: int = Field(16 * 2**20, ge=1024)
    """Of what the server sends for one call, images included. A larger result is the model's mistake: it is told so."""
    max_listed_chars: int = Field(20_000, ge=1)
    """Of the prompt that the server's tools may take, descriptions and schemas together."""

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either `command`, a list of a program and its arguments, or `url`")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} does not begin with http:// or https://")
        if (self.headers and not self.url) or (self.env and not self.command):
            raise ValueError("`headers` belong to a server with a `url`, `env` to one with a `command`")
        if redacted((*self.command, self.url)) != (*self.command, self.url):
            raise ValueError(
                "a key stands in `command` or `url`, which are recorded: put it into a variable, and name that in `env` or "
                "`headers`"
            )
        return self


class AgentSettings(BaseModel):
    """One agent, the same in training, evaluation and chat."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    # What the model is told.
    prompt: str | None = "deepeyesv2"
    """Of agent/prompts, for questions that bring no system message of their own, as the published training data does; null
    leaves those as they are."""
    primer: str | None = None
    """Put before each reply that follows an observation; empty for none, null for that of the prompt. Published training
    puts `<think>` there, published evaluation nothing."""
    tools: tuple[str, ...] = ("python", "search", "image_search")
    """By the names of their files in agent/tools. Published evaluation had `python` alone."""

    # What it is shown.
    image_max_pixels: int | None = Field(default_factory=lambda: int(shared_value("image_max_pixels")), ge=3136)
    """Larger images are shrunk before the model sees them; the sandbox always has the original. The default is that of
    agent/shared.yaml, which the cold start reads too; null is no limit but the model's own."""
    max_observation_images: int = Field(10, ge=0, le=MAX_IMAGES)
    """Of one observation; what is left out leaves a mark. Published training: 10 (deepeyesv2.py:77); evaluation: all."""
    max_observation_chars: int = Field(20_000, ge=1, le=MAX_CHARS)
    """Of one observation; the middle of what is longer is left out, visibly. Published programs had no limit."""

    # When it ends.
    max_turns: int = Field(9, ge=1)
    """Model replies, the answer included. Published evaluation: 11."""
    max_reply_tokens: int | None = Field(8192, ge=1)
    """Of one reply; a longer one ends the episode. Null leaves it to what the context holds. Published evaluation: 20480."""
    max_episode_tokens: int | None = Field(None, ge=1)
    """Of all that the model writes in an episode; in training, verl.data.max_response_length bounds the episode as well."""
    episode_deadline_s: float | None = Field(None, gt=0)
    """Seconds that the model's programs may run, those of all its calls together; a program under way is stopped there. Time
    that we make it wait does not count. A single wait, for a reply or for what a call needs besides its program, that is
    longer than this is an outage, so it must be longer than the longest reply takes."""
    reply_deadline_s: float | None = Field(3600.0, gt=0)
    """From asking the engine to its reply, in seconds, the wait for a slot left out. Longer is an outage, never scored:
    tokens are bounded by their number, not by a clock."""
    tool_deadline_s: float | None = Field(900.0, gt=0)
    """Wall time of one call, in seconds. Tools have shorter limits of their own: longer than this is an outage."""

    # What its tools keep, and prompts promise.
    max_calls: dict[str, Count] = Field(default_factory=lambda: {"image_search": 1})
    """Calls by name of the tool that may succeed in an episode; further ones are refused to the model."""
    python_timeout_s: float = Field(200.0, gt=0, le=MAX_TIMEOUT_S)
    """Of one cell. Published: 200 in training and in the demo, 60 in evaluation."""
    show_last_value: bool = False
    """Shows the text of a cell's last expression behind what it printed, as a notebook does. Published: off."""
    max_hits: int = Field(5, ge=1)
    """Results of one search."""
    page_chars: int = Field(6000, ge=100)
    """Of a page that is opened with `fetch_page`; the rest is read in further parts."""
    any_image: bool = False
    """Lets `image_search` take another image of the question, or one that the code saved; off in the published protocol."""
    search: dict[str, Any] | None = None
    """For `search` and `fetch_page`: `{provider: <file in agent/search/providers>, …its settings, its mode, its budget}`."""
    image_search: dict[str, Any] | None = None
    """The same for `image_search`."""
    mcp: dict[str, McpServer] = Field(default_factory=dict)
    """For the tool `mcp`, which stands for all tools of these servers: `{<name>: {command: […]}}` or
    `{<name>: {url: …}}`."""

    # Where, and how much at once; nothing of this changes what an episode is.
    sandbox_urls: tuple[str, ...] = Field(("http://127.0.0.1:8000",), min_length=1)
    """Servers that run the model's code; CODE_SANDBOX_URL sets them. One on each node is the published advice."""
    sandbox_wait_s: float = Field(60.0, ge=0)
    """How long a call asks servers that are full or away before that is an outage."""
    max_sandbox_calls: int = Field(32, ge=1)
    """In flight to the sandboxes, of one process."""
    max_in_flight: dict[str, Count] = Field(default_factory=dict)
    """Uses at once in one process, by `policy` (the model) or a tool's name; what is not named is not bounded."""

    PLACES: ClassVar = frozenset({"sandbox_urls", "sandbox_wait_s", "max_sandbox_calls", "max_in_flight"})
    """Settings of which a result does not depend."""

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (old := [name for name in given if name in OLD_NAMES]):
            raise ValueError("; ".join(f"{name} is called {OLD_NAMES[name]} now" for name in old))
        return given

    @property
    def tools_on(self) -> tuple[str, ...]:
        """The tools without those whose source has `mode: off`: neither offered nor named in a prompt."""
        blocks = {"search": self.search, "image_search": self.image_search}
        off = {name for name, block in blocks.items() if (block or {}).get("mode") in _OFF}
        return tuple(tool for tool in self.tools if _SOURCES.get(tool) not in off)


def with_sources(tools: tuple[str, ...], given: Mapping[str, Any]) -> tuple[str, ...]:
    """The tools without those that no source was named for, for callers who asked for none of them by name."""
    return tuple(tool for tool in tools if tool not in _SOURCES or given.get(_SOURCES[tool]) is not None)
