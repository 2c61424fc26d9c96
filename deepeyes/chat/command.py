"""`deepeyes chat`: talk with a served model that looks, computes and searches; what happens is shown as it happens."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from agent.episode import Episode
from agent.errors import EpisodeFailure, SandboxAway
from agent.images import ImageFile, UnreadableImage
from agent.model_keys import model_key
from agent.openai_chat import ChatClient, ChatSettings
from agent.options import add_agent_options, given_settings, settings_of
from agent.settings import AgentSettings, with_sources
from agent.setup import AgentSetup, open_setup
from agent.trajectory import TrajectoryWriter
from code_sandbox.command_line import CommandParser, program
from deepeyes.chat.conversation import Conversation, missing_sandbox, setup_for
from deepeyes.chat.terminal import TerminalView
from deepeyes.chat.web.options import WebOptions

_WEB, _WEB_OUT = WebOptions(), Path("runs/chat")
_ATTEMPTS = 3
"""Somebody waits: a server that does not answer for two seconds is said to be away."""
_PROMPT = "\nnext question (empty ends): "


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOptions:
    """What is asked, and whom."""

    questions: tuple[str, ...]
    """One after the other, in one conversation."""
    settings: AgentSettings
    base_url: str
    images: tuple[Path, ...] = ()
    """Of the first question."""
    model: str | None = None
    """Name at the server; None is the first that it lists."""
    dialect: Literal["vllm", "openai"] = "vllm"
    temperature: float = 0.0
    out: Path | None = None
    """Where the episodes are recorded."""
    web: WebOptions | None = None
    """Serve a page instead of asking."""


def chat(options: ChatOptions, *, on_terminal: bool) -> int:
    """Ask all questions, and on a terminal those that are typed then.

    Returns:
        Exit status; 0 if the model answered the last one.

    Raises:
        PolicyUnavailable: The model's server does not answer.
        EpisodeFailure: There is no sandbox, or the episode failed.
    """
    console = Console()
    images = tuple(_read_image(path) for path in options.images)
    setup, client = open_setup(options.settings), ChatClient(server_settings(options))
    answered = False
    with asyncio.Runner() as runner, contextlib.ExitStack() as closing:
        closing.callback(lambda: runner.run(_close(setup, client)))
        client = runner.run(_ready(setup, client))
        view = TerminalView(console, options.out / "shown" if options.out else None)
        out = None if options.out is None else TrajectoryWriter(options.out)
        conversation = Conversation(setup_for(setup, options.settings, client), client, on_event=view, out=out)
        closing.callback(lambda: runner.run(conversation.aclose()))
        for text in _questions(options.questions, on_terminal=on_terminal):
            episode: Episode = runner.run(conversation.ask(text, images))
            images, answered = (), episode.answer is not None
            if episode.failed and not on_terminal:
                raise EpisodeFailure(episode.failure)
            if episode.failed:
                console.print(episode.failure, style="red", markup=False)
    return int(not answered)


def server_settings(options: ChatOptions) -> ChatSettings:
    """How the model's server is asked."""
    return ChatSettings(
        base_url=options.base_url,
        model=options.model or "",
        api_key=model_key([options.base_url]),
        dialect=options.dialect,
        temperature=options.temperature,
        attempts=_ATTEMPTS,
    )


async def _ready(setup: AgentSetup, client: ChatClient) -> ChatClient:
    """The client of a server that answers, with a model's name; and the sandbox answers, too."""
    if not client.settings.model:
        client = client.asking(model=(await client.models())[0])
    if missing := await missing_sandbox(setup):
        raise SandboxAway(missing)
    return client


async def _close(setup: AgentSetup, client: ChatClient) -> None:
    await client.aclose()
    await setup.aclose()


def _questions(given: Sequence[str], *, on_terminal: bool) -> Iterator[str]:
    yield from given
    while on_terminal:
        try:
            text = input(_PROMPT).strip()
        except EOFError:
            return
        if not text:
            return
        yield text


def chat_settings(given: Mapping[str, Any]) -> AgentSettings:
    """The agent that was asked for; without `tools`, with those tools that have a source.

    Args:
        given: Settings by name.

    Raises:
        RecipeError: A setting is unknown, or cannot be.
    """
    settings: AgentSettings = settings_of(AgentSettings, given)
    return settings if "tools" in given else settings.model_copy(update={"tools": with_sources(settings.tools, given)})


_PROGRAM = "deepeyes chat"


def parse(arguments: list[str] | None = None, prog: str = _PROGRAM) -> ChatOptions:
    """The command line.

    Raises:
        ValueError: No question can be had.
    """
    parser = CommandParser(
        prog=prog,
        description="Ask a served model; on a terminal, go on with further questions.",
        examples=(
            'deepeyes chat --image street.jpg "What does the sign say?"',
            "deepeyes chat --web --base-url http://127.0.0.1:8001/v1",
        ),
    )
    parser.add_argument(
        "question", nargs="*", help="`-` reads it from standard input; of several, each follows up on the one before"
    )
    parser.add_argument("--image", type=Path, action="append", default=[], help="of the first question; may be repeated")
    parser.add_argument("--model", help="name at the server; by default the first it lists")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8001/v1", help="any OpenAI-compatible server; key: MODEL_API_KEY"
    )
    parser.add_argument(
        "--dialect", choices=("vllm", "openai"), default="vllm", help="`openai` for servers that are not vLLM"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="of sampling; by default 0: the likeliest token")
    parser.add_argument(
        "--out", type=Path, help="record the episodes here, for `deepeyes view`, with the images that were shown"
    )
    add_agent_options(parser, instead={"tools": "python, and search and image_search if they have a source"})
    _add_web_options(parser)
    options = parser.parse_args(arguments)
    if options.temperature < 0:
        parser.error(f"--temperature {options.temperature:g} cannot be; expected 0 or more")
    if options.web and (options.question or options.image):
        parser.error("with --web questions and images are given on the page")
    web = WebOptions(
        host=options.host, port=options.port, allowed_hosts=tuple(options.allowed_host), replay=options.replay
    )
    return ChatOptions(
        questions=() if options.web else tuple(_texts(options.question)),
        settings=chat_settings(given_settings(options)),
        base_url=options.base_url,
        images=tuple(options.image),
        model=options.model,
        dialect=options.dialect,
        temperature=options.temperature,
        out=options.out,
        web=web if options.web else None,
    )


def _add_web_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the page", "A page to talk to, and to replay recorded episodes on, step by step.")
    group.add_argument("--web", action="store_true", help=f"serve the page; it records in --out, by default {_WEB_OUT}")
    group.add_argument(
        "--host", default=_WEB.host, help="beyond loopback the printed link holds a token; default: %(default)s"
    )
    group.add_argument("--port", type=int, default=_WEB.port, help="0 is any that is free; default: %(default)s")
    group.add_argument(
        "--allowed-host", action="append", default=[], help="a name of this server besides localhost; may be repeated"
    )
    group.add_argument("--replay", type=Path, metavar="RUN", help="replay the records of this run instead of the chat's own")


def _texts(given: Sequence[str]) -> Iterator[str]:
    if given.count("-") > 1:
        raise ValueError("standard input can be read only once: give `-` for one question")
    if not given and not sys.stdin.isatty():
        raise ValueError('there is no question: write deepeyes chat "…", or `-` to read it from standard input')
    for text in given:
        text = sys.stdin.read().strip() if text == "-" else text
        if not text:
            raise ValueError("a question is empty; say what you want to know")
        yield text


def main(arguments: list[str] | None = None, *, prog: str = _PROGRAM) -> None:
    """Command line."""
    with program(prog):
        options = parse(arguments, prog)
        if options.web is not None:
            _serve(options, options.web)
        else:
            sys.exit(chat(options, on_terminal=sys.stdin.isatty() and sys.stdout.isatty()))


def _serve(options: ChatOptions, web: WebOptions) -> None:
    try:
        from deepeyes.chat.web.serve import serve_page
    except ModuleNotFoundError as error:
        raise RuntimeError(f"the page needs {error.name}; install it with: pip install 'deepeyes[view]'") from error
    serve_page(web, options.settings, server_settings(options), options.out or _WEB_OUT)


def _read_image(path: Path) -> ImageFile:
    image = ImageFile(path.read_bytes())
    try:
        image.check()
    except UnreadableImage as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    return image
