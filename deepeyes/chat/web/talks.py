"""Conversations that pages watch. Each keeps a log of what happened, so that a page may come late, come back, or be one of
several; whether anyone watches makes no difference to an episode.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from agent.episode import Episode
from agent.images import ImageFile
from deepeyes.chat.conversation import Conversation
from deepeyes.chat.events import EpisodeEnded, Event, TurnReplied
from deepeyes.chat.web.rows import Row, row_of
from deepeyes.chat.web.shelf import ImageShelf, ShelfFull

MOST_TALKS = 32
"""Kept at once; beyond it the one that was quiet longest goes."""


class TalkBusy(RuntimeError):
    """A question is being answered; the next one has to wait."""


class TooManyTalks(RuntimeError):
    """All conversations that a server keeps are busy."""


class Talk:
    """One conversation and its log.

    Args:
        shelf: For the images that are shown.
        on_end: Is given each episode that is over.
    """

    def __init__(self, shelf: ImageShelf, on_end: Callable[[Episode, str], None]) -> None:
        self.id = uuid.uuid4().hex
        self.conversation: Conversation | None = None
        self.touched = time.monotonic()
        self._shelf, self._on_end = shelf, on_end
        self._rows: list[tuple[int, Row]] = []
        self._number = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[Episode] | None = None
        self._text = ""

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._task is not None and not self._task.done()

    def ask(self, text: str, images: Sequence[ImageFile]) -> None:
        """Begin to answer a question.

        Raises:
            TalkBusy: Another one is being answered.
        """
        if self.busy:
            raise TalkBusy("a question is being answered; wait for its end, or stop it")
        assert self.conversation is not None
        self._text = text
        self._task = asyncio.create_task(self.conversation.ask(text, images))
        self._task.add_done_callback(self._settled)

    async def stop(self) -> None:
        """Stop the answer under way, if there is one, and wait until it is recorded."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def aclose(self) -> None:
        """Stop, end the sandbox session, and let those who watch go."""
        await self.stop()
        if self.conversation is not None:
            await self.conversation.aclose()
        self._closed = True
        self._wake()

    def tell(self, event: Event) -> None:
        """Log an event of the conversation."""
        try:
            row = row_of(event, self._shelf.keep)
        except ShelfFull as error:
            row = {"kind": "problem", "text": str(error)}
        if isinstance(event, TurnReplied):
            # The whole reply takes the place of the pieces in which it came.
            self._rows = [(number, old) for number, old in self._rows if old["kind"] != "text"]
        if isinstance(event, EpisodeEnded):
            self._on_end(event.episode, self._text)
        self._add(row)

    async def follow(self, after: int) -> AsyncIterator[tuple[int, Row]]:
        """Rows as they come, with their numbers; ends when the conversation is closed.

        Args:
            after: Number of the last row that is known already; 0 for all.
        """
        while True:
            changed = self._changed
            for number, row in _joined([entry for entry in self._rows if entry[0] > after]):
                yield number, row
                after = number
            if self._closed:
                return
            if changed is self._changed:
                await changed.wait()

    def _settled(self, task: asyncio.Task[Episode]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._add({"kind": "problem", "text": f"{error}" or type(error).__name__})
        self._add({"kind": "idle"})

    def _add(self, row: Row) -> None:
        self._number += 1
        self._rows.append((self._number, row))
        self.touched = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _joined(rows: Sequence[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Rows with texts that follow each other made one: who comes late need not take them piece by piece."""
    waiting: tuple[int, Row] | None = None
    for number, row in rows:
        if waiting is not None and row["kind"] == "text":
            waiting = number, {"kind": "text", "text": waiting[1]["text"] + row["text"]}
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        if row["kind"] == "text":
            waiting = number, row
        else:
            yield number, row
    if waiting is not None:
        yield waiting


class Talks:
    """Those of one server."""

    def __init__(self) -> None:
        self._talks: dict[str, Talk] = {}

    def get(self, name: str) -> Talk:
        """One of them.

        Raises:
            LookupError: It is not there, or not any more.
        """
        talk = self._talks.get(name)
        if talk is None:
            raise LookupError("this conversation is over; its episodes are recorded, a new one can be begun")
        return talk

    async def add(self, talk: Talk) -> None:
        """Keep one more.

        Raises:
            TooManyTalks: All of them are busy.
        """
        if len(self._talks) >= MOST_TALKS:
            quiet = sorted((one for one in self._talks.values() if not one.busy), key=lambda one: one.touched)
            if not quiet:
                raise TooManyTalks(f"{MOST_TALKS} questions are being answered; wait for one of them")
            del self._talks[quiet[0].id]
            await quiet[0].aclose()
        self._talks[talk.id] = talk

    async def aclose(self) -> None:
        """Close all of them; what was under way is recorded as stopped."""
        talks, self._talks = list(self._talks.values()), {}
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(talk.aclose() for talk in talks))
