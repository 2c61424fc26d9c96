"""Recorded episodes for the page, whatever they are of: training, evaluation or chat."""

from __future__ import annotations

import io
import zipfile
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from agent.episode import Episode
from agent.images import ImageFile, UnreadableImage
from agent.record_images import MOST_IMAGE_BYTES, image_path
from agent.records import RolloutFacts
from agent.trajectory import TrajectoryWriter
from deepeyes.chat.events import events_of
from deepeyes.chat.web.rows import Row, row_of
from viewer.app import make_app
from viewer.index import EpisodeIndex, find_records
from viewer.listing import ListedEpisode

_TITLE_CHARS = 200


class Replays:
    """The records of one folder, which may still be empty. Its methods block; call them in a thread.

    Args:
        directory: A run, or a folder with one run in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._index: EpisodeIndex | None = None

    def listed(self, *, offset: int, limit: int) -> dict[str, Any]:
        """Newest first."""
        index = self._opened()
        if index is None:
            return {"total": 0, "rows": []}
        index.refresh()
        found = index.page({}, sort="id", descending=True, offset=offset, limit=limit)
        return {"total": found.total, "rows": [asdict(row) | {"title": _title(index, row)} for row in found.rows]}

    def rows(self, number: int) -> list[Row]:
        """One episode, event by event.

        Raises:
            LookupError: There is no such episode.
        """
        episode, facts = self.episode(number)
        typed = facts.question if facts.source == "chat" else ""
        events = events_of(episode, text=typed, recorded=self.directory)
        return [row_of(event, _keep_nothing, with_past=True) for event in events]

    def episode(self, number: int) -> tuple[Episode, RolloutFacts]:
        """One episode with what is known of it.

        Raises:
            LookupError: There is no such episode.
        """
        index = self._opened()
        if index is None:
            raise LookupError(f"no episode {number}: nothing is recorded in {self.directory} yet")
        rollout = index.rollout(number)
        return rollout.episode, rollout.facts

    def image(self, sha256: str) -> ImageFile | None:
        """An image of a record; None if there is none that can be shown."""
        index = self._opened()
        if index is None:
            return None
        try:
            path = image_path(index.directory, sha256)
            if path.stat().st_size > MOST_IMAGE_BYTES:
                return None
            image = ImageFile(path.read_bytes())
            return image if image.mime else None
        except (OSError, UnreadableImage):
            return None

    def _opened(self) -> EpisodeIndex | None:
        if self._index is None:
            try:
                self._index = EpisodeIndex(find_records(self.directory))
            except FileNotFoundError:
                return None
        return self._index


def _title(index: EpisodeIndex, row: ListedEpisode) -> str:
    """What a person knows an episode by: its question in a chat, its item elsewhere."""
    if row.category != "chat":
        return row.item_id
    try:
        return index.rollout(row.id).facts.question[:_TITLE_CHARS] or row.item_id
    except LookupError as error:
        return str(error)


def _keep_nothing(_: ImageFile) -> None:
    """Images of records lie beside them."""


def as_zip(episode: Episode, facts: RolloutFacts) -> bytes:
    """A folder with one record and its images, which `deepeyes view` opens once it is unpacked. Blocks."""
    buffer = io.BytesIO()
    with TemporaryDirectory(prefix="deepeyes-chat-") as name:
        folder = Path(name)
        TrajectoryWriter(folder).write(episode, facts)
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, f"episode-{episode.episode_id[:8]}/{path.relative_to(folder)}")
    return buffer.getvalue()


class ViewerBelow:
    """`deepeyes view` of a folder, as soon as something is recorded there.

    Args:
        directory: A run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._app: ASGIApp | None = None

    def open(self) -> None:
        """Make it, if it is not there yet. Blocks.

        Raises:
            FileNotFoundError: Nothing is recorded yet.
            ValueError: The folder holds several runs.
        """
        if self._app is None:
            # Who may call is decided before a request comes here.
            self._app = make_app([self._directory], hosts=["*"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        assert self._app is not None
        await self._app(scope, receive, send)
