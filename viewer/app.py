"""Serves the page and what it asks for; nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from pygments.formatters import HtmlFormatter

from agent.images import ImageFile, UnreadableImage
from agent.record_images import MOST_IMAGE_BYTES, image_path, missing_stores
from viewer.access import PageAccess
from viewer.entrance import open_entrance
from viewer.episode import describe, find_tokenizer
from viewer.index import EpisodeIndex, EpisodePage, ListedEpisode, find_records

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_HERE = Path(__file__).parent
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILTERS = ("step", "category", "stop_reason", "tool", "min_reward", "max_reward", "text")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """An item in two runs."""

    item_id: str
    left: ListedEpisode | None
    right: ListedEpisode | None


def make_app(
    directories: Sequence[Path],
    *,
    tokenizer: Path | None = None,
    token: str = "",
    hosts: Sequence[str] = (),
    cookie: str = "deepeyes_view",
) -> FastAPI:
    """The application over one or two runs.

    Args:
        directories: Runs, or folders with one run in them.
        tokenizer: Folder of a model, to show tokens as text; by default that of the run's recipe.
        token: See `PageAccess`.
        hosts: See `PageAccess`.
        cookie: See `PageAccess`.

    Raises:
        FileNotFoundError, ValueError: A folder holds no run, or several.
    """
    if not 1 <= len(directories) <= 2:
        raise ValueError(f"{len(directories)} runs given; expected one, or two to see them side by side")
    runs = [EpisodeIndex(find_records(directory)) for directory in directories]
    names = [str(directory) for directory in directories]
    tokenizers = [find_tokenizer(run.directory, tokenizer) for run in runs]
    app = FastAPI(title="deepeyes view", docs_url=None, redoc_url=None, openapi_url=None)
    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    # Added last, it is asked first.
    app.add_middleware(PageAccess, token=token, hosts=hosts, cookie=cookie)
    app.include_router(_files(runs))
    app.include_router(_lists(runs, names))
    app.include_router(_episodes(runs, tokenizers))
    return app


def _chosen(runs: Sequence[EpisodeIndex], number: int) -> EpisodeIndex:
    if not 0 <= number < len(runs):
        raise HTTPException(404, f"no run {number}")
    return runs[number]


def _files(runs: Sequence[EpisodeIndex]) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(_HERE / "page.html")

    @router.get("/page.{suffix}")
    def asset(suffix: Literal["js", "css"]) -> FileResponse:
        return FileResponse(_HERE / f"page.{suffix}")

    @router.get("/code.css")
    def code_style() -> Response:
        return Response(HtmlFormatter(style="default").get_style_defs(".code"), media_type="text/css")

    @router.get("/images/{number}/{sha256}")
    def image(number: int, sha256: str) -> Response:
        directory = _chosen(runs, number).directory
        if not _SHA256.fullmatch(sha256):
            raise HTTPException(404, "no such image")
        try:
            path = image_path(directory, sha256)
        except FileNotFoundError as error:
            raise HTTPException(404, missing_stores(directory) or "no such image") from error
        if path.stat().st_size > MOST_IMAGE_BYTES:
            raise HTTPException(415, f"the image has more than {MOST_IMAGE_BYTES:,} bytes")
        try:
            mime = ImageFile(path.read_bytes()).mime
        except UnreadableImage as error:
            raise HTTPException(415, str(error)) from error
        return FileResponse(path, media_type=mime, headers={"Cache-Control": "max-age=31536000, immutable"})

    return router


def _lists(runs: Sequence[EpisodeIndex], names: Sequence[str]) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/runs")
    def list_runs() -> list[dict[str, Any]]:
        return [
            {"name": name, "episodes": run.refresh(), "unreadable": run.unreadable, "facets": run.facets()}
            for name, run in zip(names, runs, strict=True)
        ]

    @router.get("/runs/{number}/episodes")
    def list_episodes(
        request: Request,
        number: int,
        sort: str = "id",
        descending: bool = False,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=1000),
    ) -> EpisodePage:
        filters = {name: request.query_params[name] for name in _FILTERS if request.query_params.get(name, "") != ""}
        try:
            return _chosen(runs, number).page(filters, sort=sort, descending=descending, offset=offset, limit=limit)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    @router.get("/compare")
    def compare(
        differ: bool = False, offset: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=1000)
    ) -> dict[str, Any]:
        if len(runs) != 2:
            raise HTTPException(404, "only one run is open; start with two folders to compare")
        left, right = (run.items() for run in runs)
        items = sorted(left.keys() | right.keys())
        pairs = [Pair(item, left.get(item), right.get(item)) for item in items]
        if differ:
            pairs = [pair for pair in pairs if _verdict(pair.left) != _verdict(pair.right)]
        return {"total": len(pairs), "rows": pairs[offset : offset + limit]}

    return router


def _episodes(runs: Sequence[EpisodeIndex], tokenizers: Sequence[Tokenizer | None]) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/runs/{number}/episodes/{episode}")
    def one_episode(number: int, episode: int) -> dict[str, Any]:
        run = _chosen(runs, number)
        try:
            return describe(run.rollout(episode), tokenizers[number])
        except LookupError as error:
            raise HTTPException(404, str(error)) from error

    return router


def _verdict(row: ListedEpisode | None) -> str | float:
    if row is None:
        return "missing"
    return row.score if row.score is not None else row.reward if row.reward is not None else row.answer


def serve(
    directories: Sequence[Path],
    *,
    host: str,
    port: int,
    allowed_hosts: Sequence[str] = (),
    tokenizer: Path | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        directories: See `make_app`.
        host: See `open_entrance`.
        port: See `open_entrance`.
        allowed_hosts: See `open_entrance`.
        tokenizer: See `make_app`.

    Raises:
        FileNotFoundError, ValueError: A folder holds no run, or several.
        OSError: The port is taken, or the address is not this machine's.
    """
    for missing in filter(None, (missing_stores(find_records(directory)) for directory in directories)):
        print(f"deepeyes view: {missing}", flush=True)
    entrance = open_entrance(host, port, allowed_hosts)
    with entrance.listener:
        cookie = f"deepeyes_view_{entrance.port}"
        app = make_app(directories, tokenizer=tokenizer, token=entrance.token, hosts=entrance.hosts, cookie=cookie)
        print(f"{entrance.link}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[entrance.listener])
