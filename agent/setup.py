"""Setting up an episode: the one place where settings become what the model reads, its tools, and the loop's limits.

Training, evaluation and chat open an `AgentSetup` each, and play all their episodes with it; what they have of their own is
the policy, and what becomes of the episode.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.chat_formats import image_rule_for
from agent.episode import Episode, OnTurn, run_episode
from agent.images import ImageFile, ImageRule
from agent.messages import IMAGE_PLACEHOLDER, Message, escape, shown
from agent.policy import Policy
from agent.prompts import Prompt, load_prompt
from agent.scheduling import Slots
from agent.search.gateway import Search, open_search, pages_of
from agent.settings import AgentSettings
from agent.tools import EpisodeState, Sandbox, Tool, ToolContext, build_tools, described_tools
from agent.tracing import traced_episode
from code_sandbox.client import SandboxClient
from serving.tracing import tracer
from serving.urls import split_urls

_PUBLISHED_PROMPT = "deepeyesv2"


def prompt_of(settings: AgentSettings) -> Prompt | None:
    """The prompt that the settings name, for the tools that are on; None where rows are left as they are.

    Raises:
        LookupError: There is none of that name.
        ValueError: Its file is broken, or it lists tools and there is none to list.
    """
    return None if settings.prompt is None else load_prompt(settings.prompt, settings=settings)


def primer_of(settings: AgentSettings, *, can_prime: bool = True) -> str:
    """What stands before each reply that follows an observation.

    Args:
        settings: Its own word counts first, then the prompt's. Rows that are left as they are follow the published protocol.
        can_prime: Whether the model's server can go on with a reply that we begin, and does not begin it itself; if not, the
            default is nothing.
    """
    if settings.primer is not None:
        return settings.primer
    if not can_prime:
        return ""
    return load_prompt(settings.prompt or _PUBLISHED_PROMPT, settings=settings).primer


def opening(messages: Sequence[Message], prompt: Prompt | None) -> tuple[Message, ...]:
    """What the model reads first: the messages themselves, or the prompt around them if they bring no system message."""
    if prompt is None or messages[0].role == "system":
        return tuple(messages)
    last = replace(messages[-1], text=prompt.question(messages[-1].text))
    return (Message("system", prompt.system), *messages[:-1], last)


def question(text: str, images: Sequence[ImageFile]) -> Message:
    """A bare question as the rows of the training data put it: the images first, each in a line of its own."""
    return Message("user", f"{IMAGE_PLACEHOLDER}\n" * len(images) + escape(text), tuple(images))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What the tools of a conversation keep from one episode to the next."""

    sandbox: Sandbox | None
    """Gives the same session to every episode."""
    state: EpisodeState = field(default_factory=EpisodeState)


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """What the episodes of one process share."""

    settings: AgentSettings
    prompt: Prompt | None
    primer: str
    """As decided from settings and prompt; the policy has to put it there."""
    sandbox: SandboxClient | None
    search: Search | None
    image_search: Search | None
    slots: Slots
    image_rule: ImageRule
    """What the model sees of images: the question's, here, and those of tools, in the loop."""

    def opening(self, *messages: Message) -> tuple[Message, ...]:
        """See the function of this name; images are fitted, which decodes them: call it in a thread where others wait.

        Raises:
            UnreadableImage: An image is none.
        """
        return opening([shown(message, self.image_rule) for message in messages], self.prompt)

    def under(self, settings: AgentSettings, *, image_rule: ImageRule, can_prime: bool) -> AgentSetup:
        """The same connections under other settings, which have no tools besides those of this setup.

        Args:
            settings: Of the agent.
            image_rule: See `open_setup`.
            can_prime: See `primer_of`.

        Raises:
            LookupError: There is no prompt of the name.
            ValueError: The prompt cannot be used with these tools.
        """
        prompt, primer = prompt_of(settings), primer_of(settings, can_prime=can_prime)
        return replace(self, settings=settings, prompt=prompt, primer=primer, image_rule=image_rule)

    def tools(self, images: Sequence[ImageFile], item_id: str = "", *, kept: Kept | None = None) -> dict[str, Tool]:
        """One episode's tools.

        Args:
            images: The files of the question, not as the model sees them.
            item_id: Key of the question in a recorded image search.
            kept: What an earlier episode of the same conversation left.

        Raises:
            LookupError: There is no tool of a name.
            ValueError: A tool lacks what it needs.
        """
        context = ToolContext(
            images=tuple(images),
            item_id=item_id,
            sandbox=self.sandbox if kept is None else kept.sandbox,
            search=self.search,
            image_search=self.image_search,
            pages=pages_of(self.search),
            settings=self.settings,
            state=EpisodeState() if kept is None else kept.state,
        )
        return build_tools(self.settings.tools_on, context)

    async def play(
        self,
        opening: Sequence[Message],
        policy: Policy,
        *,
        images: Sequence[ImageFile],
        item_id: str = "",
        wrap: Callable[[Tool], Tool] | None = None,
        kept: Kept | None = None,
        on_turn: OnTurn | None = None,
    ) -> Episode:
        """Play one episode.

        Args:
            opening: As `opening` gives it.
            policy: One that has seen nothing yet.
            images: See `tools`.
            item_id: See `tools`.
            wrap: Put around each tool, to withhold what it gives.
            kept: See `tools`.
            on_turn: Of `run_episode`.
        """
        tools = self.tools(images, item_id, kept=kept)
        if wrap is not None:
            tools = {name: wrap(tool) for name, tool in tools.items()}
        tracing = tracer()
        play = run_episode if tracing is None else partial(traced_episode, tracing)
        return await play(
            opening,
            policy=policy,
            tools=tools,
            settings=self.settings,
            image_rule=self.image_rule,
            slots=self.slots,
            on_turn=on_turn,
        )

    async def aclose(self) -> None:
        """Close connections and files."""
        for closing in (self.sandbox, self.search, self.image_search):
            if closing is not None:
                await closing.aclose()


def open_setup(
    settings: AgentSettings,
    *,
    image_rule: ImageRule | None = None,
    can_prime: bool = True,
    sandbox: SandboxClient | None = None,
) -> AgentSetup:
    """Open what the episodes of a process share.

    Args:
        settings: Of the agent.
        image_rule: Of the model, within `image_max_pixels`; None is that of a model of which nothing is known.
        can_prime: See `primer_of`.
        sandbox: Instead of the servers that the settings name, for tests.

    Raises:
        LookupError: No prompt, tool or search provider of a name.
        ValueError: A setting of a search block is unknown, missing or wrong, or a prompt cannot be used.
        FileNotFoundError: A search index, cache or recording is not there.
    """
    if sandbox is None and "python" in settings.tools_on:
        sandbox = SandboxClient(
            settings.sandbox_urls, wait_s=settings.sandbox_wait_s, max_in_flight=settings.max_sandbox_calls
        )
    described_tools(settings.tools_on, settings)  # what others serve is missed here, and not in the first episode
    return AgentSetup(
        settings=settings,
        prompt=prompt_of(settings),
        primer=primer_of(settings, can_prime=can_prime),
        sandbox=sandbox,
        search=open_search(settings.search),
        image_search=open_search(settings.image_search),
        slots=Slots(settings.max_in_flight),
        image_rule=image_rule or image_rule_for("", settings.image_max_pixels),
    )


def from_environment() -> Mapping[str, Any]:
    """The settings that the environment sets: addresses alone."""
    urls = split_urls(os.environ.get("CODE_SANDBOX_URL"))
    return {"sandbox_urls": list(urls)} if urls else {}
