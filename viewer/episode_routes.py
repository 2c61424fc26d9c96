"""What the page asks about one episode, which it names by its id: a link to it lasts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse

from agent.images import ImageFile, UnreadableImage
from agent.record_images import MOST_IMAGE_BYTES, image_path
from viewer.episode import describe
from viewer.filters import asked_filters
from viewer.listing import EpisodePlace
from viewer.runs import OpenRuns


def episode_routes(runs: OpenRuns) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.get("/api/runs/{key}/episode")
    def one_episode(key: str, episode: str) -> dict[str, Any]:
        run = runs[key]
        return describe(run.index.rollout(run.index.number_of(episode)), run.tokenizer)

    @router.get("/api/runs/{key}/place")
    def place(request: Request, key: str, episode: str, sort: str = "id", descending: bool = False) -> EpisodePlace:
        filters = asked_filters(request.query_params)
        return runs[key].index.place(episode, filters, sort=sort, descending=descending)

    @router.get("/images/{key}/{sha256}")
    def image(key: str, sha256: str) -> Response:
        try:
            path = image_path(runs[key].directory, sha256)
        except FileNotFoundError as error:
            raise HTTPException(404, str(error)) from error
        if path.stat().st_size > MOST_IMAGE_BYTES:
            raise HTTPException(415, f"the image has more than {MOST_IMAGE_BYTES:,} bytes")
        try:
            mime = ImageFile(path.read_bytes()).mime
        except UnreadableImage as error:
            raise HTTPException(415, str(error)) from error
        return FileResponse(path, media_type=mime, headers={"Cache-Control": "max-age=31536000, immutable"})

    return router
