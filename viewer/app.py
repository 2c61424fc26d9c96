"""Serves the page and what it asks for; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from agent.record_images import missing_stores
from viewer.access import PageAccess
from viewer.entrance import open_entrance
from viewer.episode_routes import episode_routes
from viewer.filters import asked_filters
from viewer.index import find_records
from viewer.listing import EpisodePage, ListedEpisode
from viewer.runs import OpenRuns

PAGE = Path(__file__).parent / "page"
"""The files of the page, all of which are served by their names."""


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
    runs = OpenRuns(directories, tokenizer)
    app = FastAPI(title="deepeyes view", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageAccess, token=token, hosts=hosts, cookie=cookie)
    for kind, status in ((LookupError, 404), (ValueError, 400)):
        app.add_exception_handler(kind, _said(status))
    app.include_router(_files())
    app.include_router(_lists(runs))
    app.include_router(episode_routes(runs))
    return app


def _said(status: int) -> Any:
    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return answer


def _files() -> APIRouter:
    router = APIRouter()
    assets = {path.name: path for path in PAGE.iterdir()}

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "page.html")

    @router.get("/{name}.{suffix}")
    def asset(name: str, suffix: str) -> FileResponse:
        if suffix not in ("js", "css") or f"{name}.{suffix}" not in assets:
            raise HTTPException(404, "no such file")
        return FileResponse(assets[f"{name}.{suffix}"])

    return router


def _lists(runs: OpenRuns) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/runs")
    def list_runs() -> list[dict[str, Any]]:
        return [
            {
                "key": run.key,
                "title": run.title,
                "episodes": run.index.refresh(),
                "unreadable": run.index.unreadable,
                "facets": run.index.facets(),
            }
            for run in runs
        ]

    @router.get("/runs/{key}/episodes")
    def list_episodes(
        request: Request,
        key: str,
        sort: str = "id",
        descending: bool = False,
        offset: int = Query(0, ge=0),
        limit: int = Query(100, ge=1, le=1000),
    ) -> EpisodePage:
        filters = asked_filters(request.query_params)
        return runs[key].index.page(filters, sort=sort, descending=descending, offset=offset, limit=limit)

    @router.get("/compare")
    def compare(
        differ: bool = False, offset: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=1000)
    ) -> dict[str, Any]:
        if len(runs) != 2:
            raise HTTPException(404, "only one run is open; start with two folders to compare")
        left, right = (run.index.items() for run in runs)
        items = sorted(left.keys() | right.keys())
        pairs = [Pair(item, left.get(item), right.get(item)) for item in items]
        if differ:
            pairs = [pair for pair in pairs if _verdict(pair.left) != _verdict(pair.right)]
        return {"total": len(pairs), "rows": pairs[offset : offset + limit]}

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
