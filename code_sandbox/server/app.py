"""HTTP routes of the sandbox server, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from code_sandbox.server.kernels import KernelStartFailed
from code_sandbox.server.sessions import BadImage, SessionManager, TooManySessions, UnknownSession
from code_sandbox.server.settings import Settings
from code_sandbox.server.store import SessionStore, StoreUnavailable
from code_sandbox.wire import (
    CreateSession,
    ExecuteRequest,
    ExecuteResult,
    Health,
    LegacyRequest,
    SessionInfo,
)

_RETRY_AFTER_S = "1"


def create_app(settings: Settings, store: SessionStore | None = None) -> FastAPI:
    """The ASGI app; kernels and Redis are touched when it starts, not here."""
    sessions = SessionManager(settings, store or SessionStore(settings.redis_url))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await sessions.start()
        try:
            yield
        finally:
            await sessions.stop()

    app = FastAPI(title="DeepEyes code sandbox", version="1", lifespan=lifespan)
    _add_error_handlers(app)

    @app.get("/health")
    async def health() -> Health:
        return await sessions.health()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        state = await sessions.health()
        lines = [f"deepeyes_sandbox_sessions {state.sessions}"]
        if state.redis == "ok":
            counters = await sessions.counters()
            lines += [f"deepeyes_sandbox_{name}_total {value}" for name, value in sorted(counters.items())]
        return "\n".join(lines) + "\n"

    @app.post("/v1/sessions", status_code=201)
    async def create(request: CreateSession) -> SessionInfo:
        await sessions.create(request.session_id, request.images)
        return SessionInfo(session_id=request.session_id, server_id=settings.name, lease_s=settings.lease_s)

    @app.post("/v1/sessions/{session_id}/execute")
    async def execute(session_id: str, request: ExecuteRequest) -> ExecuteResult:
        return await sessions.execute(session_id, request.code, timeout_s=request.timeout_s)

    @app.delete("/v1/sessions/{session_id}", status_code=204)
    async def close(session_id: str) -> None:
        await sessions.close(session_id)

    @app.post("/jupyter_sandbox")
    async def jupyter_sandbox(request: LegacyRequest) -> dict[str, Any]:
        if not request.code.strip():
            return {"output": "Error: no code was given", "status": "error", "execution_time": 0.0}
        await sessions.create(request.session_id, ())
        result = await sessions.execute(request.session_id, request.code, timeout_s=request.timeout)
        return _legacy_reply(result)

    @app.post("/clear_session")
    async def clear_session(request: LegacyRequest) -> dict[str, Any]:
        await sessions.close(request.session_id)
        return {"status": "success"}

    return app


def _legacy_reply(result: ExecuteResult) -> dict[str, Any]:
    """The fields of MultiModal-Jupyter-Sandbox 148d8d8, fast_api_server.py; `status` is "success" even for exceptions."""
    stderr = result.stderr
    if result.error is not None:
        stderr = "\n".join(part for part in (stderr, result.error.traceback) if part)
    if result.status == "timeout":
        stderr = "\n".join(part for part in (stderr, "TimeOutError: code execution timed out") if part)
    elif result.status == "killed":
        stderr = "\n".join(part for part in (stderr, "the kernel died and its variables are lost") if part)
    images = [base64.b64encode(image.data).decode() for image in result.images]
    return {
        "output": {"result": result.result, "stdout": result.stdout, "stderr": stderr, "images": images},
        "status": "success",
        "execution_time": result.execution_time_s,
    }


def _add_error_handlers(app: FastAPI) -> None:
    def answer(error: type[Exception], status: int, headers: dict[str, str] | None = None) -> None:
        async def handle(_: Request, raised: Exception) -> JSONResponse:
            body = {"error": error.__name__, "message": str(raised)}
            return JSONResponse(body, status_code=status, headers=headers)

        app.add_exception_handler(error, handle)

    answer(UnknownSession, 404)
    answer(BadImage, 422)
    answer(TooManySessions, 429, {"Retry-After": _RETRY_AFTER_S})
    answer(StoreUnavailable, 503, {"Retry-After": _RETRY_AFTER_S})
    answer(KernelStartFailed, 503, {"Retry-After": _RETRY_AFTER_S})


def check_port_is_free(host: str, port: int) -> None:
    """Raises:
    OSError: Something listens there already, or the address is not ours.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it or choose another --port"
            ) from error


async def _check_redis(url: str) -> None:
    store = SessionStore(url)
    try:
        await store.ping()
    finally:
        await store.aclose()


def serve(settings: Settings) -> None:
    """Run the server until SIGINT or SIGTERM.

    Raises:
        OSError: The port is in use, or there is no Redis.
        ValueError: The host is beyond loopback.
    """
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(
            f"host is {settings.host!r}, but model code is only lightly isolated so far: listen on 127.0.0.1 "
            "and run one server per node"
        )
    check_port_is_free(settings.host, settings.port)
    asyncio.run(_check_redis(settings.redis_url))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning", access_log=False)
