"""HTTP routes of the sandbox server, and nothing else. Bodies are JSON or msgpack, whichever the caller says."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgpack
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ValidationError

from code_sandbox.errors import BadRequest, BlobsMissing, CallerGone, ServerError, UnknownSession
from code_sandbox.server.api_page import api_page
from code_sandbox.server.callers import Bodies, CallerCheck, has_too_many_values
from code_sandbox.server.packed import unpacked
from code_sandbox.server.sessions import SessionManager
from code_sandbox.server.settings import ServerSettings
from code_sandbox.wire import (
    JSON,
    MSGPACK,
    CreateSession,
    ExecuteRequest,
    ExecuteResult,
    Health,
    Isolation,
    LegacyRequest,
    MissingBlobs,
    SessionInfo,
)

_RETRY_AFTER_S = "1"
_MAX_BODY_BYTES = 16 << 20
_LARGE_BYTES = 64 << 10
_MOST_NESTED, _LONGEST = 100, 1000
"""Lists and maps of a request, and their entries; a session has 64 images, and nothing else is a list."""
_WATCH_FOR_DISCONNECT_AFTER_S = 0.1

_Model = TypeVar("_Model", bound=BaseModel)
_Result = TypeVar("_Result")


def create_app(settings: ServerSettings, sessions: SessionManager, isolation: Isolation, *, token: str = "") -> FastAPI:
    """The ASGI app around sessions that are started already; it ends them when it shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sessions.start_background()
        try:
            yield
        finally:
            await sessions.stop()

    app = FastAPI(title="DeepEyes code sandbox", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    app.add_middleware(CallerCheck, token=token, hosts=settings.hosts)
    reader = _Reader()
    _add_state_routes(app, settings, sessions, isolation)
    _add_session_routes(app, settings, sessions, reader)
    _add_legacy_routes(app, sessions, reader)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))

    return app


def _add_state_routes(app: FastAPI, settings: ServerSettings, sessions: SessionManager, isolation: Isolation) -> None:
    @app.get("/health")
    async def health() -> Health:
        await sessions.check_redis()
        zygote, metrics = sessions.pool.zygote.state, sessions.metrics
        return Health(
            status="draining" if sessions.draining else "ok" if sessions.redis_ok and zygote == "ok" else "degraded",
            server_id=settings.name,
            backend=settings.backend,
            sessions=len(sessions),
            max_sessions=settings.max_sessions,
            running_cells=sessions.running_cells,
            waiting_cells=sessions.waiting_cells,
            redis="ok" if sessions.redis_ok else "down",
            zygote=zygote,
            outages=metrics.outages,
            model_faults=metrics.model_faults,
            isolation=isolation,
        )

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(sessions.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_session_routes(app: FastAPI, settings: ServerSettings, sessions: SessionManager, reader: _Reader) -> None:
    @app.put("/v1/blobs/{sha256}", status_code=204, response_class=Response, openapi_extra=_BLOB_BODY)
    async def put_blob(sha256: str, request: Request) -> Response:
        if not sessions.blobs.has(sha256):
            await sessions.add_image(sha256, await reader.file(request, settings.max_blob_bytes))
        return Response(status_code=204)

    @app.post("/v1/sessions", status_code=201, response_model=SessionInfo, openapi_extra=_body_of(CreateSession))
    async def create(request: Request) -> Response:
        wanted = await reader.parse(request, CreateSession)
        cells = await sessions.create(wanted.session_id, wanted.images)
        info = SessionInfo(session_id=wanted.session_id, server_id=settings.name, lease_s=settings.lease_s, cells=cells)
        return _answer(request, info, status=201)

    @app.post("/v1/sessions/{session_id}/execute", response_model=ExecuteResult, openapi_extra=_body_of(ExecuteRequest))
    async def execute(session_id: str, request: Request) -> Response:
        wanted = await reader.parse(request, ExecuteRequest)
        return _answer(request, await _while_connected(request, sessions.execute(session_id, wanted)))

    @app.delete("/v1/sessions/{session_id}", status_code=204, response_class=Response)
    async def close(session_id: str) -> Response:
        await sessions.close(session_id)
        return Response(status_code=204)


def _add_legacy_routes(app: FastAPI, sessions: SessionManager, reader: _Reader) -> None:
    async def run(wanted: LegacyRequest) -> ExecuteResult:
        cell = ExecuteRequest(code=wanted.code, timeout_s=wanted.timeout)
        try:
            return await sessions.execute(wanted.session_id, cell)
        except UnknownSession:
            await sessions.create(wanted.session_id)
            return await sessions.execute(wanted.session_id, cell)

    @app.post("/jupyter_sandbox", openapi_extra=_body_of(LegacyRequest))
    async def jupyter_sandbox(request: Request) -> dict[str, Any]:
        wanted = await reader.parse(request, LegacyRequest)
        if not wanted.code.strip():
            return {"output": "Error: no code was given", "status": "error", "execution_time": 0.0}
        return _legacy_reply(await run(wanted))

    @app.post("/run_jupyter", openapi_extra=_body_of(LegacyRequest))
    async def run_jupyter(request: Request) -> dict[str, Any]:
        wanted = await reader.parse(request, LegacyRequest)
        if not wanted.code.strip():
            return {"output": "Error: no code was given", "status": "error", "execution_time": 0.0}
        return _legacy_reply_2(await run(wanted))

    @app.post("/clear_session", openapi_extra=_body_of(LegacyRequest))
    async def clear_session(request: Request) -> dict[str, Any]:
        await sessions.close((await reader.parse(request, LegacyRequest)).session_id)
        return {"status": "success"}


_BLOB_BODY = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": {JSON: schema, MSGPACK: schema}}}


class _Reader:
    """Reads requests of one application."""

    def __init__(self) -> None:
        self._bodies = Bodies()

    async def file(self, request: Request, limit: int) -> bytes:
        return await self._bodies.read(request, limit)

    async def parse(self, request: Request, model: type[_Model]) -> _Model:
        """A body as a model; a large one beside the event loop.

        Raises:
            BadRequest: It is none.
        """
        body = await self._bodies.read(request, _MAX_BODY_BYTES)
        packed = request.headers.get("content-type") == MSGPACK
        if len(body) > _LARGE_BYTES:
            return await asyncio.to_thread(_parse, body, packed, model)
        return _parse(body, packed, model)


def _parse(body: bytes, packed: bool, model: type[_Model]) -> _Model:
    try:
        if packed:
            return model.model_validate(unpacked(body, most_nested=_MOST_NESTED, longest=_LONGEST))
        if has_too_many_values(body):
            raise BadRequest("the body has more values than any request of ours")
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadRequest(f"{where}: {first['msg']}; got {repr(first.get('input'))[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no msgpack: {error}") from error


def _answer(request: Request, model: BaseModel, status: int = 200) -> Response:
    if MSGPACK in request.headers.get("accept", ""):
        return Response(msgpack.packb(model.model_dump(), unicode_errors="replace"), status, media_type=MSGPACK)
    return Response(model.model_dump_json(), status, media_type=JSON)


async def _while_connected(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do the work; cancel it if the caller hangs up."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=_WATCH_FOR_DISCONNECT_AFTER_S)
        if not task.done():
            gone = asyncio.ensure_future(request.receive())
            try:
                await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
        if not task.done():
            raise CallerGone("the caller hung up; its cell was stopped and its session closed")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _stderr(result: ExecuteResult) -> str:
    parts = [result.stderr]
    if result.error is not None:
        parts.append(result.error.traceback)
    if result.status == "timeout":
        parts.append("TimeOutError: code execution timed out")
    elif result.status == "killed":
        parts.append("the kernel died and its variables are lost")
    return "\n".join(part for part in parts if part)


def _legacy_reply(result: ExecuteResult) -> dict[str, Any]:
    """The fields of MultiModal-Jupyter-Sandbox 148d8d8, fast_api_server.py; `status` is "success" even for exceptions."""
    images = [base64.b64encode(image.data).decode() for image in result.images]
    return {
        "output": {"result": result.result, "stdout": result.stdout, "stderr": _stderr(result), "images": images},
        "status": "success",
        "execution_time": result.execution_time_s,
    }


def _legacy_reply_2(result: ExecuteResult) -> dict[str, Any]:
    """The fields of fast_api_server_v2.py of the same: no `result`, which comes with stdout, and images as data URLs."""
    stdout = "\n".join(part for part in (result.stdout.rstrip("\n"), result.result) if part)
    stderr = _stderr(result)
    images = [f"data:{image.mime};base64,{base64.b64encode(image.data).decode()}" for image in result.images]
    return {
        "output": {"stdout": stdout, "stderr": stderr, "stdout_raw": stdout, "stderr_raw": stderr, "images": images},
        "status": "success",
        "execution_time": result.execution_time_s,
    }


def _add_error_handlers(app: FastAPI) -> None:
    async def answer(_: Request, raised: Exception) -> JSONResponse:
        assert isinstance(raised, ServerError)
        headers = {"Retry-After": _RETRY_AFTER_S} if raised.later else None
        body = {"error": type(raised).__name__, "message": str(raised)}
        return JSONResponse(body, status_code=raised.status, headers=headers)

    async def missing(_: Request, raised: Exception) -> JSONResponse:
        assert isinstance(raised, BlobsMissing)
        body = MissingBlobs(message=str(raised), missing=raised.missing)
        return JSONResponse(body.model_dump(), status_code=raised.status)

    app.add_exception_handler(ServerError, answer)
    app.add_exception_handler(BlobsMissing, missing)
