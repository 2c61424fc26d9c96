"""What the page asks: conversations, images, records. A question is answered whether a page watches or not."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from agent.episode import Episode
from agent.errors import PolicyUnavailable
from agent.images import ImageFile, UnreadableImage
from agent.openai_chat import ChatClient
from agent.records import RolloutFacts
from agent.setup import AgentSetup
from agent.trajectory import TrajectoryWriter
from deepeyes.chat.conversation import Conversation, missing_sandbox, setup_for
from deepeyes.chat.web.choices import Chosen, offered, settings_for
from deepeyes.chat.web.replays import Replays, ViewerBelow, as_zip
from deepeyes.chat.web.shelf import ImageShelf, ShelfFull
from deepeyes.chat.web.talks import Talk, TalkBusy, Talks, TooManyTalks
from viewer.access import PageAccess
from viewer.templates import STYLES

MOST_UPLOAD_BYTES = 20 << 20
MOST_IMAGES = 64
"""Of a conversation, as many as a sandbox session takes."""
_MOST_JSON_BYTES = 1 << 20
_MOST_QUESTION_CHARS = 100_000
_KEPT_EPISODES = 256
_STILL_THERE_S = 15.0
_HERE = Path(__file__).parent


class AskedOnPage(BaseModel):
    """The body of a question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1, max_length=_MOST_QUESTION_CHARS)
    images: tuple[str, ...] = Field((), max_length=MOST_IMAGES)
    """Uploaded before, by sha256."""
    conversation: str | None = None
    """That it follows up on; None begins one."""
    chosen: Chosen = Chosen()
    """Counts where a conversation begins."""


@dataclass(kw_only=True, slots=True)
class ChatServer:
    """What the routes share."""

    setup: AgentSetup
    client: ChatClient
    """Without a model's name, all that its server lists may be chosen."""
    out: Path
    """Where everything is recorded."""
    replay: Path | None = None
    """Run that is replayed, if not what is recorded here."""
    talks: Talks = field(default_factory=Talks)
    shelf: ImageShelf = field(default_factory=ImageShelf)
    episodes: OrderedDict[str, tuple[Episode, RolloutFacts]] = field(default_factory=OrderedDict)
    """The last ones of this server, by their ids."""
    listed: list[str] = field(default_factory=list)
    """The models as their server last named them: a question need not wait for it to do so again."""
    writer: TrajectoryWriter = field(init=False)
    replays: Replays = field(init=False)

    def __post_init__(self) -> None:
        # Several servers may record into one folder.
        self.writer = TrajectoryWriter(self.out, shared=True)
        self.replays = Replays(self.replay or self.out)

    async def models(self) -> list[str]:
        """Those that may be chosen.

        Raises:
            PolicyUnavailable: The model's server does not answer.
        """
        fixed = self.client.settings.model
        self.listed = [fixed] if fixed else await self.client.models()
        return self.listed

    def remember(self, episode: Episode, text: str) -> None:
        """Keep an episode for its download."""
        self.episodes[episode.episode_id] = episode, RolloutFacts(source="chat", question=text)
        while len(self.episodes) > _KEPT_EPISODES:
            self.episodes.popitem(last=False)

    async def begin(self, chosen: Chosen) -> Talk:
        """A new conversation.

        Raises:
            ValueError: More was chosen than there is.
            PolicyUnavailable: The model's server does not answer.
            TooManyTalks: Too many are busy.
        """
        settings = settings_for(self.setup.settings, chosen)
        if not self.listed or chosen.model not in (None, *self.listed):
            await self.models()
        model = chosen.model or self.listed[0]
        if model not in self.listed:
            raise ValueError(f"this server has no model {model[:200]!r}; it has {', '.join(self.listed)}")
        changes = {} if chosen.temperature is None else {"temperature": chosen.temperature}
        client = self.client.asking(model=model, **changes)
        talk = Talk(self.shelf, self.remember)
        setup = setup_for(self.setup, settings, client)
        talk.conversation = Conversation(setup, client, on_event=talk.tell, out=self.writer)
        await self.talks.add(talk)
        return talk

    async def aclose(self) -> None:
        """Stop what is under way, and close connections."""
        await self.talks.aclose()
        await self.client.aclose()
        await self.setup.aclose()
        self.shelf.close()


def make_chat_app(server: ChatServer, *, token: str = "", hosts: tuple[str, ...] = (), cookie: str = "deepeyes") -> FastAPI:
    """The application.

    Args:
        server: What it is about.
        token: See `PageAccess`.
        hosts: See `PageAccess`.
        cookie: See `PageAccess`.
    """
    app = FastAPI(title="deepeyes chat", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageAccess, token=token, hosts=hosts, cookie=cookie)
    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, _said(status))
    app.include_router(_files())
    app.include_router(_images(server))
    app.include_router(_questions(server))
    app.include_router(_records(server))
    app.mount("/view", _viewer(server))
    return app


_STATUS: dict[type[Exception], int] = {
    TalkBusy: 409, TooManyTalks: 429, ShelfFull: 507, PolicyUnavailable: 502, LookupError: 404, ValueError: 422,
}  # fmt: skip


def _said(status: int) -> Any:
    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return answer


def _files() -> APIRouter:
    router = APIRouter()

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(_HERE / "page.html")

    @router.get("/{name}.{suffix}")
    def asset(name: str, suffix: str) -> FileResponse:
        path = _ASSETS.get(f"{name}.{suffix}")
        if path is None:
            raise HTTPException(404, "no such file")
        return FileResponse(path)

    return router


_OWN = ("page.css", "page.js", "transcript.js", "replay.js", "words.js")
_ASSETS = {path.name: path for path in (*STYLES, *(_HERE / name for name in _OWN))}


def _images(server: ChatServer) -> APIRouter:
    router = APIRouter(prefix="/api/images")

    @router.post("")
    async def upload(request: Request) -> dict[str, Any]:
        image = ImageFile(await _body(request, MOST_UPLOAD_BYTES, "the image"))
        try:
            await run_in_threadpool(image.check)
        except UnreadableImage as error:
            raise HTTPException(415, f"this file is no image that can be used: {error}") from error
        await run_in_threadpool(server.shelf.keep, image)
        return {"image": image.sha256, "width": image.size[0], "height": image.size[1]}

    @router.get("/{sha256}")
    def image(sha256: str) -> Response:
        found = server.shelf.get(sha256) or server.replays.image(sha256)
        if found is None:
            raise HTTPException(404, "no such image, or none that can be shown")
        return Response(found.data, media_type=found.mime, headers={"Cache-Control": "max-age=31536000, immutable"})

    return router


def _questions(server: ChatServer) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/setup")
    async def setup() -> dict[str, Any]:
        try:
            models, problem = await server.models(), ""
        except PolicyUnavailable as error:
            models, problem = [], str(error)
        return offered(server.setup.settings, server.client.settings.temperature) | {
            "models": models,
            "problems": [text for text in (problem, await missing_sandbox(server.setup)) if text],
            "most_upload_bytes": MOST_UPLOAD_BYTES,
            "recorded": str(server.out),
            "replayed": str(server.replays.directory),
        }

    @router.post("/questions", status_code=202)
    async def ask(request: Request) -> dict[str, str]:
        asked = AskedOnPage.model_validate_json(await _body(request, _MOST_JSON_BYTES, "the question"))
        images = [server.shelf.get(name) for name in asked.images]
        if None in images:
            raise HTTPException(404, "an image is not there any more; add it again")
        talk = server.talks.get(asked.conversation) if asked.conversation else await server.begin(asked.chosen)
        assert talk.conversation is not None
        if talk.conversation.num_images + len(images) > MOST_IMAGES:
            raise HTTPException(422, f"a conversation has at most {MOST_IMAGES} images; begin another one")
        talk.ask(asked.text, [image for image in images if image is not None])
        return {"conversation": talk.id}

    @router.get("/conversations/{name}/events")
    async def events(request: Request, name: str, after: int = Query(0, ge=0)) -> StreamingResponse:
        talk = server.talks.get(name)
        last = request.headers.get("last-event-id", "")
        rows = _as_events(talk, int(last) if last.isascii() and last.isdigit() else after)
        return StreamingResponse(rows, media_type="text/event-stream")

    @router.post("/conversations/{name}/stop")
    async def stop(name: str) -> dict[str, bool]:
        talk = server.talks.get(name)
        stopped = talk.busy
        await talk.stop()
        return {"stopped": stopped}

    return router


async def _as_events(talk: Talk, after: int) -> AsyncIterator[str]:
    """Server-sent events, with a sign of life between them: without one a connection that is gone is not noticed."""
    rows = talk.follow(after)
    coming: asyncio.Task[tuple[int, Any]] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(rows))
            done, _ = await asyncio.wait([coming], timeout=_STILL_THERE_S)
            if not done:
                yield ": still there\n\n"
                continue
            number, row = coming.result()
            coming = None
            yield f"id: {number}\ndata: {json.dumps(row)}\n\n"
    except StopAsyncIteration:
        yield 'data: {"kind": "closed"}\n\n'
    finally:
        if coming is not None:
            coming.cancel()


def _records(server: ChatServer) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/records")
    def records(offset: int = Query(0, ge=0), limit: int = Query(50, ge=1, le=500)) -> dict[str, Any]:
        return server.replays.listed(offset=offset, limit=limit)

    @router.get("/records/{number}")
    def record(number: int) -> list[dict[str, Any]]:
        return server.replays.rows(number)

    @router.get("/records/{number}/download")
    def download_record(number: int) -> Response:
        return _download(*server.replays.episode(number))

    @router.get("/episodes/{name}/download")
    def download(name: str) -> Response:
        if name not in server.episodes:
            raise HTTPException(404, "this episode is not at hand any more; it is recorded, and can be replayed")
        return _download(*server.episodes[name])

    return router


def _download(episode: Episode, facts: RolloutFacts) -> Response:
    try:
        data = as_zip(episode, facts)
    except (OSError, UnreadableImage) as error:
        raise HTTPException(422, f"the episode cannot be packed: {error}") from error
    name = f"episode-{episode.episode_id[:8]}.zip" if episode.episode_id[:8].isalnum() else "episode.zip"
    return Response(data, media_type="application/zip", headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _viewer(server: ChatServer) -> Any:
    below = ViewerBelow(server.replays.directory)

    async def viewer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await run_in_threadpool(below.open)
        except (FileNotFoundError, ValueError) as error:
            await JSONResponse({"detail": str(error)}, status_code=404)(scope, receive, send)
            return
        await below(scope, receive, send)

    return viewer


async def _body(request: Request, most_bytes: int, what: str) -> bytes:
    """The whole body; one that is too large is not read to its end.

    Raises:
        HTTPException: 413.
    """
    too_large = HTTPException(413, f"{what} has more than {most_bytes >> 20} MiB", headers={"Connection": "close"})
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > most_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)
