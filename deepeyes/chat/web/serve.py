"""Serving the page: on loopback without ado, beyond it with a token in the link."""

from __future__ import annotations

import asyncio
import secrets
import socket
from pathlib import Path

import uvicorn

from agent.openai_chat import ChatClient, ChatSettings
from agent.settings import AgentSettings
from agent.setup import open_setup
from deepeyes.chat.web.app import ChatServer, make_chat_app
from deepeyes.chat.web.options import WebOptions

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise OSError(
            f"cannot listen on {options.host}:{options.port} ({error.strerror}); stop what uses it, or give another --port"
        ) from error
    with listener:
        asyncio.run(_serve(options, settings, model, out, listener))


async def _serve(
    options: WebOptions, settings: AgentSettings, model: ChatSettings, out: Path, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    is_loopback = options.host in _LOOPBACK
    token = "" if is_loopback else secrets.token_urlsafe(24)
    hosts = options.allowed_hosts if is_loopback else options.allowed_hosts or ("*",)
    chat = ChatServer(setup=open_setup(settings), client=ChatClient(model), out=out, replay=options.replay)
    app = make_chat_app(chat, token=token, hosts=hosts, cookie=f"deepeyes_chat_{port}")
    server = _PageServer(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5), chat)
    name = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{name}:{port}/{f'?token={token}' if token else ''}  (Ctrl-C ends it; recorded in {out})", flush=True)
    await server.serve(sockets=[listener])
