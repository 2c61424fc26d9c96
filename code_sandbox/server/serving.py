"""Runs one sandbox server: listen, measure, serve, end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from code_sandbox.errors import KernelStartFailed
from code_sandbox.redaction import clean_key
from code_sandbox.server import probes
from code_sandbox.server.app import create_app
from code_sandbox.server.callers import GuardedProtocol
from code_sandbox.server.kernel_pool import KernelPool
from code_sandbox.server.own_folder import OwnFolder
from code_sandbox.server.sessions import SessionManager
from code_sandbox.server.settings import ServerSettings
from code_sandbox.server.store import SessionStore
from code_sandbox.wire import Isolation

_LOG = logging.getLogger(__name__)
_BACKLOG = 2048
_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def listen(settings: ServerSettings) -> socket.socket:
    """A socket bound to the configured address; a Unix socket is for this user only.

    Raises:
        OSError: Something listens there already, or the address is not ours.
    """
    if settings.uds:
        path = Path(settings.uds)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if path.is_socket() and listener.connect_ex(str(path)) == 0:
                raise OSError(f"cannot listen on {path}: another server does; stop it or choose another --uds")
            path.unlink(missing_ok=True)
            listener.close()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
            path.chmod(0o600)
        except OSError:
            listener.close()
            raise
        return listener
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); stop what uses it or choose another "
            "--port"
        ) from error
    return listener


async def measure_here(settings: ServerSettings) -> Isolation:
    """What a server with these settings would reach on this machine. Needs no Redis.

    Raises:
        KernelStartFailed: Sessions cannot be started.
    """
    folder = OwnFolder()
    pool = KernelPool(settings, folder.path)
    try:
        await pool.zygote.start()
        return await probes.measure(pool, settings, folder.path)
    finally:
        await pool.stop()
        folder.remove()


async def _serve(settings: ServerSettings, listener: socket.socket, token: str) -> None:
    sessions = SessionManager(settings, SessionStore(settings.redis_url))
    try:
        await sessions.start()
        isolation = await probes.measure(sessions.pool, settings, sessions.root)
        if (reason := probes.refusal(isolation, settings.require_level)) is not None:
            raise KernelStartFailed(reason)
    except BaseException:
        await sessions.stop()
        raise
    _LOG.info("listening", extra={"server": settings.name, "backend": settings.backend, "isolation": isolation.level})
    config = uvicorn.Config(
        create_app(settings, sessions, isolation, token=token),
        http=GuardedProtocol,
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def serve(settings: ServerSettings) -> None:
    """Run the server until SIGINT or SIGTERM.

    Raises:
        OSError: The address is in use, or there is no Redis.
        ValueError: The address is beyond loopback, and there is no token.
        KernelStartFailed: Sessions cannot be started, or are less isolated than required.
    """
    token = clean_key(os.environ.get("CODE_SANDBOX_TOKEN", ""), "CODE_SANDBOX_TOKEN")
    if settings.beyond_loopback and not token:
        raise ValueError(
            f"host is {settings.host!r}, which others can reach: set CODE_SANDBOX_TOKEN to a secret that clients must send, "
            "or listen on 127.0.0.1"
        )
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # uvicorn hands the signal that ended it on to us, and what follows must still be done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Two descriptors a session, and one a connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with listen(settings) as listener:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve(settings, listener, token))
        finally:
            if settings.uds:
                Path(settings.uds).unlink(missing_ok=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
