"""`deepeyes chat`: talk with a served model that looks, computes and searches; what happens is shown as it happens."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.syntax import Syntax

from agent.chat_formats import begins_replies, image_rule_for
from agent.episode import Episode
from agent.images import ImageFile, UnreadableImage
from agent.messages import Message
from agent.model_keys import model_key
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.options import add_agent_options, given_settings, settings_of
from agent.policy import Policy, Reply
from agent.protocol import ToolCall, parse_action
from agent.records import RolloutFacts
from agent.search.gateway import Search
from agent.settings import AgentSettings, with_sources
from agent.setup import AgentSetup, open_setup, question
from agent.tools import Tool, ToolResult
from agent.trajectory import TrajectoryWriter


class ShownTool:
    """A tool whose results are printed, and whose images are written where they can be looked at."""

    def __init__(self, tool: Tool, console: Console, images: Path | None) -> None:
        self._tool = tool
        self._console = console
        self._images = images

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Run it and print what came."""
        with self._console.status("running"):
            result = await self._tool.run(arguments)
        self._console.print(result.observation.text, style="yellow", markup=False, highlight=False)
        for image in result.observation.images:
            width_px, height_px = image.size
            where = ""
            if self._images is not None:
                self._images.mkdir(parents=True, exist_ok=True)
                path = self._images / f"{image.sha256[:12]}.{image.mime.removeprefix('image/')}"
                path.write_bytes(image.data)
                where = f" -> {path}"
            self._console.print(f"[image of {width_px}x{height_px} px{where}]", style="yellow", markup=False)
        return result

    async def close(self) -> None:
        """Close it."""
        await self._tool.close()


class ShownPolicy:
    """Prints a reply while it is written; code once more in colour, when it is whole."""

    def __init__(self, client: ChatClient, setup: AgentSetup, console: Console) -> None:
        self._policy: Policy = ChatPolicy(
            client, max_reply_tokens=setup.settings.max_reply_tokens, primer=setup.primer, on_text=self._print
        )
        self._console = console

    def _print(self, piece: str) -> None:
        self._console.print(piece, end="", style="blue", markup=False, highlight=False, soft_wrap=True)

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        """Ask, and show what is said."""
        reply = await self._policy.reply(new_messages, max_tokens=max_tokens)
        self._console.print()
        action = parse_action(reply.primer + reply.text)
        if isinstance(action, ToolCall) and action.name == "python":
            self._console.print(Syntax(str(action.arguments["code"]), "python", theme="ansi_light", line_numbers=True))
        return reply


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOptions:
    """One question, and whom to ask."""

    question: str
    settings: AgentSettings
    base_url: str
    images: tuple[Path, ...] = ()
    model: str | None = None
    """Name at the server; None is the first that it lists."""
    dialect: Literal["vllm", "openai"] = "vllm"
    out: Path | None = None
    """Where the episode is recorded."""


async def chat(options: ChatOptions) -> int:
    """Returns: exit status; 0 if the model answered."""
    console = Console()
    images = tuple(_read_image(path) for path in options.images)
    server = ChatSettings(
        base_url=options.base_url,
        model=options.model or "",
        api_key=model_key([options.base_url]),
        dialect=options.dialect,
    )
    rule = image_rule_for(server.model, options.settings.image_max_pixels)
    can_prime = server.can_prime and not begins_replies(server.model)
    setup = open_setup(options.settings, image_rule=rule, can_prime=can_prime)
    client = ChatClient(server)
    try:
        if not options.model:
            client.settings = client.settings.model_copy(update={"model": (await client.models())[0]})
        if setup.sandbox is not None and not await setup.sandbox.available():
            await setup.sandbox.health()
        episode = await play(setup, client, options.question, images, console=console, out=options.out)
    finally:
        await client.aclose()
        await setup.aclose()
    return _report(episode, console, setup.search, options)


async def play(
    setup: AgentSetup,
    client: ChatClient,
    text: str,
    images: tuple[ImageFile, ...],
    *,
    console: Console,
    out: Path | None = None,
) -> Episode:
    """One question from its opening to its answer, shown as it happens."""
    policy = ShownPolicy(client, setup, console)
    shown = out / "shown" if out else None
    opening = await asyncio.to_thread(setup.opening, question(text, images))
    return await setup.play(opening, policy, images=images, wrap=lambda tool: ShownTool(tool, console, shown))


def chat_settings(given: Mapping[str, Any]) -> AgentSettings:
    """The agent that was asked for; without `tools`, with those tools that have a source.

    Args:
        given: Settings by name.

    Raises:
        RecipeError: A setting is unknown, or cannot be.
    """
    settings: AgentSettings = settings_of(AgentSettings, given)
    return settings if "tools" in given else settings.model_copy(update={"tools": with_sources(settings.tools, given)})


def parse(arguments: list[str] | None = None) -> ChatOptions:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deepeyes chat", description="Ask a served model one question.")
    parser.add_argument("question")
    parser.add_argument("--image", type=Path, action="append", default=[])
    parser.add_argument("--model", help="name at the server; by default the first it lists")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8001/v1", help="any OpenAI-compatible server; key: MODEL_API_KEY"
    )
    parser.add_argument(
        "--dialect", choices=("vllm", "openai"), default="vllm", help="`openai` for servers that are not vLLM"
    )
    parser.add_argument(
        "--out", type=Path, help="record the episode here, for `deepeyes view`, with the images that were shown"
    )
    add_agent_options(parser, instead={"tools": "python, and search and image_search if they have a source"})
    options = parser.parse_args(arguments)
    return ChatOptions(
        question=options.question,
        settings=chat_settings(given_settings(options)),
        base_url=options.base_url,
        images=tuple(options.image),
        model=options.model,
        dialect=options.dialect,
        out=options.out,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    sys.exit(asyncio.run(chat(parse(arguments))))


def _read_image(path: Path) -> ImageFile:
    image = ImageFile(path.read_bytes())
    try:
        image.check()
    except UnreadableImage as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    return image


def _report(episode: Episode, console: Console, search: Search | None, options: ChatOptions) -> int:
    if options.out:
        TrajectoryWriter(options.out).write(episode, RolloutFacts(source="chat", question=options.question))
        console.print(f"recorded in {options.out}; look at it with: deepeyes view {options.out}", markup=False)
    if episode.failed:
        raise RuntimeError(episode.failure)
    console.print(episode.answer or "(no answer)", style="bold", markup=False)
    asked = f", {search.counters.get('asked', 0)} searches" if search is not None else ""
    spent = f"{len(episode.turns)} turns, {episode.num_tokens} tokens, {episode.wall_s:.1f} s{asked}"
    console.print(f"({episode.stop_reason.value}, {spent})", markup=False)
    return int(episode.answer is None)
