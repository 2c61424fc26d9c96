"""Serving the page."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn

from agent.openai_chat import ChatClient, ChatSettings
from agent.settings import AgentSettings
from agent.setup import open_setup
from deepeyes.chat.web.app import ChatServer, make_chat_app
from deepeyes.chat.web.options import WebOptions
from viewer.entrance import Entrance, open_entrance


class _PageServer(uvicorn.Server):
    """Lets pages that watch go before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, chat: ChatServer) -> None:
        super().__init__(config)
        self._chat = chat

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop what is under way first."""
        await self._chat.aclose()
        await super().shutdown(sockets)


def serve_page(options: WebOptions, settings: AgentSettings, model: ChatSettings, out: Path) -> None:
    """Serve until interrupted; episodes under way are then recorded as stopped.

    Args:
        options: Where.
        settings: Of the agent; the page chooses within them.
        model: How the model's server is asked; without a model's name the page chooses one.
        out: Where everything is recorded.

    Raises:
        OSError: The port is taken, or the address is not this machine's.
        FileNotFoundError: The run to replay is not there.
    """
    if options.replay is not None and not options.replay.exists():
        raise FileNotFoundError(f"no run at {options.replay}; --replay wants a folder with recorded episodes")
    entrance = open_entrance(options.host, options.port, options.allowed_hosts)
    with entrance.listener:
        asyncio.run(_serve(entrance, options.replay, settings, model, out))


async def _serve(
    entrance: Entrance, replay: Path | None, settings: AgentSettings, model: ChatSettings, out: Path
) -> None:
    chat = ChatServer(setup=open_setup(settings), client=ChatClient(model), out=out, replay=replay)
    app = make_chat_app(chat, token=entrance.token, hosts=entrance.hosts, cookie=f"deepeyes_chat_{entrance.port}")
    server = _PageServer(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5), chat)
    print(f"{entrance.link}  (Ctrl-C ends it; recorded in {out})", flush=True)
    await server.serve(sockets=[entrance.listener])
