"""One sandbox session for all questions of a conversation: variables live on, and later images join the first ones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from typing import Any

from agent.images import ImageFile
from agent.tools import CellRunner, Sandbox
from code_sandbox.errors import SandboxError, SessionLost
from code_sandbox.wire import DEFAULT_MAX_CHARS, MAX_IMAGES, ExecuteResult

_LOAD = (
    "image_{number} = __import__('PIL.Image').Image.open(__import__('io').BytesIO(__import__('base64').b64decode({data!r})))"
    "\nimage_{number}.load()"
)
"""Leaves no other name behind in the model's namespace."""
_LOAD_WITHIN_S = 60.0
_MOST_LOADED_BYTES = 10 << 20
"""A sandbox server takes 16 MiB for a cell, and an image is a third larger in one."""


class KeptSession:
    """A sandbox that gives the same session to every episode.

    A session that is gone (its lease ends after minutes of reading, its server died, a cell was stopped) is opened anew at
    the next cell, and the model is told that its variables are lost.

    Args:
        sandbox: Where the session is opened, when the first cell comes.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._session: CellRunner | None = None
        self._images: list[bytes] = []
        self._num_loaded = 0
        self._lost = False

    async def open(self, images: Sequence[bytes] = (), *, session_id: str | None = None) -> KeptSession:  # noqa: ARG002
        """The session, which will have these images.

        Args:
            images: Those of all questions so far.
            session_id: Has no meaning here.
        """
        self._images = list(images)
        return self

    async def execute(
        self, code: str, *, timeout_s: float, max_images: int = MAX_IMAGES, max_chars: int = DEFAULT_MAX_CHARS
    ) -> ExecuteResult:
        """Run a cell.

        Raises:
            SandboxError: No session could be had, or it was lost while the cell ran.
        """

        async def run() -> ExecuteResult:
            session = await self._ready()
            result: ExecuteResult = await session.execute(
                code, timeout_s=timeout_s, max_images=max_images, max_chars=max_chars
            )
            return result

        is_new = self._session is None
        try:
            try:
                result = await run()
            except SessionLost:
                if is_new:
                    raise
                self._session, self._lost = None, True
                result = await run()
        except asyncio.CancelledError:
            # What was stopped may run for minutes yet, and nobody knows what it has changed by then.
            await asyncio.shield(self.end())
            self._lost = True
            raise
        if self._lost:
            result, self._lost = result.model_copy(update={"state_lost": True}), False
        elif result.state_lost:
            # Its server loads again what the session was opened with; that is all but what joined later.
            self._num_loaded = 0
        return result

    async def _ready(self) -> CellRunner:
        if self._session is not None and self._num_loaded < len(self._images) and not await self._load(self._session):
            await self.end()
            self._lost = True
        if self._session is None:
            self._session = await self._sandbox.open(self._images)
            self._num_loaded = len(self._images)
        return self._session

    async def _load(self, session: CellRunner) -> bool:
        """Give the session the images that it lacks; False if it does not take one."""
        while self._num_loaded < len(self._images):
            image = await asyncio.to_thread(ImageFile(self._images[self._num_loaded]).upright)
            if len(image.data) > _MOST_LOADED_BYTES:
                return False
            code = _LOAD.format(number=self._num_loaded + 1, data=base64.b64encode(image.data).decode())
            result: Any = await session.execute(code, timeout_s=_LOAD_WITHIN_S)
            if result.status != "ok":
                return False
            self._num_loaded += 1
        return True

    async def close(self) -> None:
        """An episode is over; the session is not."""

    async def end(self) -> None:
        """The conversation is over, and with it the session; one that cannot be reached ends with its lease."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(SandboxError):
                await session.close()
