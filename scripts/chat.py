"""`deepeyes chat`: one question to a served model, printed turn by turn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax

from agent.episode import EpisodeLimits, run_episode
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.policy import Reply
from agent.prompts import load_prompt
from agent.protocol import ToolCall, parse_action
from agent.search.local import Provider, Settings
from agent.tools import ToolContext, build_tools
from code_sandbox.client import SandboxClient


class _ShownPolicy:
    """Prints what passes between model and tools."""

    def __init__(self, policy: ChatPolicy, console: Console) -> None:
        self._policy = policy
        self._console = console
        self._started = False

    async def reply(self, new_messages: Sequence[Message]) -> Reply:
        if self._started:
            for message in new_messages:
                self._console.print(f"[yellow]tool[/]  {escape(message.text)}")
        self._started = True
        reply = await self._policy.reply(new_messages)
        action = parse_action(reply.text)
        if isinstance(action, ToolCall) and action.name == "python":
            thinking = reply.text.rpartition("</think>")[0].replace("<think>", "").strip()
            self._console.print(f"[blue]model[/] [italic]{escape(thinking)}[/]")
            self._console.print(Syntax(str(action.arguments["code"]), "python", theme="ansi_light"))
        else:
            self._console.print(f"[blue]model[/] {escape(reply.text)}")
        return reply


async def chat(options: argparse.Namespace) -> int:
    """Returns: exit status; 0 if the model answered."""
    console = Console()
    images = tuple(ImageFile(path.read_bytes()) for path in options.image)
    prompt = load_prompt(options.prompt)
    opening = (
        Message("system", prompt.system),
        Message("user", f"{IMAGE_PLACEHOLDER}\n" * len(images) + prompt.question(options.question), images),
    )
    client = ChatClient(
        ChatSettings(base_url=options.base_url, model=options.model, max_reply_tokens=options.max_reply_tokens)
    )
    async with SandboxClient(options.sandbox_url, wait_s=10.0) as sandbox:
        search = Provider(Settings(path=options.search_index)) if options.search_index else None
        names = ["python", "search"] if search else ["python"]
        episode = await run_episode(
            opening,
            policy=_ShownPolicy(ChatPolicy(client), console),
            tools=build_tools(names, ToolContext(images=images, sandbox=sandbox, search=search)),
            limits=EpisodeLimits(max_turns=options.max_turns),
        )
    await client.aclose()
    if episode.failed:
        raise RuntimeError(episode.failure)
    console.print(
        f"[bold]{escape(episode.answer or '(no answer)')}[/]  ({episode.stop_reason.value}, {len(episode.turns)} turns)"
    )
    return int(episode.answer is None)
