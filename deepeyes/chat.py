"""`deepeyes chat`: talk with a served model that looks, computes and searches; what happens is shown as it happens."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax

from agent.episode import Episode, EpisodeLimits, run_episode
from agent.images import ImageFile, UnreadableImage
from agent.messages import IMAGE_PLACEHOLDER, Message, escape
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.policy import Policy, Reply
from agent.prompts import Prompt, load_prompt
from agent.protocol import ToolCall, parse_action
from agent.search.gateway import Search, open_search, pages_of
from agent.tools import Tool, ToolContext, ToolResult, ToolSettings, build_tools
from agent.trajectory import TrajectoryWriter
from code_sandbox.client import SandboxClient


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

    def __init__(self, client: ChatClient, console: Console) -> None:
        self._policy: Policy = ChatPolicy(client, on_text=self._print)
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


async def chat(options: argparse.Namespace) -> int:
    """Returns: exit status; 0 if the model answered."""
    console = Console()
    images = tuple(_read_image(path) for path in options.image)
    settings = ToolSettings(python_timeout_s=options.python_timeout_s, any_image=options.any_image)
    search = open_search(_search_block(options))
    image_search = open_search({"provider": "local_images", "path": options.image_folder} if options.image_folder else None)
    names = ["python"]
    if search is not None:
        names += ["search"] + (["fetch_page"] if pages_of(search) else [])
    if image_search is not None:
        names.append("image_search")
    prompt = load_prompt(options.prompt, tools=names, settings=settings)
    client = ChatClient(
        ChatSettings(
            base_url=options.base_url,
            model=options.model or "",
            api_key=os.environ.get("OPENAI_API_KEY") or "EMPTY",
            dialect=options.dialect,
            max_reply_tokens=options.max_reply_tokens,
        )
    )
    try:
        if not options.model:
            client.settings = client.settings.model_copy(update={"model": (await client.models())[0]})
        async with SandboxClient(options.sandbox_url, wait_s=10.0) as sandbox:
            context = ToolContext(
                images=images,
                sandbox=sandbox,
                search=search,
                image_search=image_search,
                pages=pages_of(search),
                settings=settings,
            )
            tools: dict[str, Tool] = {
                name: ShownTool(tool, console, options.out / "shown" if options.out else None)
                for name, tool in build_tools(names, context).items()
            }
            episode = await run_episode(
                _opening(prompt, options.question, images),
                policy=ShownPolicy(client, console),
                tools=tools,
                limits=EpisodeLimits(max_turns=options.max_turns, deadline_s=options.deadline_s),
            )
    finally:
        for closing in (client, search, image_search):
            if closing is not None:
                await closing.aclose()
    return _report(episode, console, search, options)


def _opening(prompt: Prompt, question: str, images: tuple[ImageFile, ...]) -> tuple[Message, Message]:
    text = f"{IMAGE_PLACEHOLDER}\n" * len(images) + prompt.question(escape(question))
    return Message("system", prompt.system), Message("user", text, images)


def _read_image(path: Path) -> ImageFile:
    image = ImageFile(path.read_bytes())
    try:
        image.pil()
    except UnreadableImage as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    return image


def _search_block(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.search_index:
        return {"provider": "local", "path": options.search_index}
    return {"provider": options.search} if options.search else None


def _report(episode: Episode, console: Console, search: Search | None, options: argparse.Namespace) -> int:
    if options.out:
        TrajectoryWriter(options.out).write(episode, question=options.question)
        console.print(f"recorded in {options.out}; look at it with: deepeyes view {options.out}", markup=False)
    if episode.failed:
        raise RuntimeError(episode.failure)
    console.print(episode.answer or "(no answer)", style="bold", markup=False)
    asked = f", {search.counters.get('asked', 0)} searches" if search is not None else ""
    spent = f"{len(episode.turns)} turns, {episode.num_tokens} tokens, {episode.wall_s:.1f} s{asked}"
    console.print(f"({episode.stop_reason.value}, {spent})", markup=False)
    return int(episode.answer is None)
