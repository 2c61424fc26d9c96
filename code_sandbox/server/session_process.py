"""The process of one session, as the server holds it. What both back-ends' sessions have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_ENDED_WITHIN_S = 5.0


class SessionProcess:
    """A forked session: seen to exit at once through a pidfd, killed with all it started.

    Args:
        pidfd: Of the session's init, as the zygote that forked it has opened it; None if it had ended by then.
        last_word: Where the init writes how the session's worker ended; closed here.
        pid: The same one's number on the host.
        by_namespace: Whether its end is the end of all that it has started.
        directory: That the server shares with it, or None; removed with the session.
        released: Called once nothing of the session is left.
        spawn: Keeps a task until it is done.
    """

    def __init__(
        self,
        pidfd: int | None,
        last_word: int,
        *,
        pid: int,
        by_namespace: bool,
        directory: Path | None,
        cgroup: str,
        released: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.cgroup = cgroup
        """Name of its control group; empty if it has none."""
        self.directory = directory
        self.pid = pid
        """Of the session's init."""
        self.exited = asyncio.Event()
        self._last_word = last_word
        os.set_blocking(last_word, False)
        self._ended_by_itself: bool | None = None
        self._by_namespace = by_namespace
        self._released = released
        self._spawn = spawn
        self._ending: asyncio.Task[None] | None = None
        self._pidfd = -1 if pidfd is None else pidfd
        if self._pidfd < 0:
            self.exited.set()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.exited.set()

    def signal(self, number: int) -> None:
        """Send a signal to the session's init; to a process that is gone, nothing happens."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, number)

    def end_for_its_use(self) -> None:
        """Kill the session for what its code has used too much of."""
        self._ended_by_itself = True
        self.signal(signal.SIGKILL)

    async def was_lost(self) -> bool:
        """Whether it has ended through no doing of its code: its init is gone, and had not seen its worker end.

        Such an end is ours: the zygote or the server was killed, or somebody has killed the session from outside.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), _ENDED_WITHIN_S)
        if not self.exited.is_set() or self._ending is not None:
            return False
        if self._ended_by_itself is None:
            try:
                self._ended_by_itself = bool(os.read(self._last_word, 64))
            except BlockingIOError:
                # Something of the session lives on without its init.
                self._ended_by_itself = False
        return not self._ended_by_itself

    async def end(self) -> None:
        """Kill the session with all that it started and remove its directory. Safe to call twice.

        Once begun it is done to the end, whether or not its caller waits for that.
        """
        if self._ending is None:
            self._ending = self._spawn(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._pidfd >= 0:
            if not self._by_namespace:
                # Without a process namespace, its init has to hunt its children down.
                self.signal(signal.SIGTERM)
                await self._wait()
            self.signal(signal.SIGKILL)
            await self._wait()
        if self.directory is not None:
            await asyncio.to_thread(shutil.rmtree, self.directory, True)
            self.directory = None
        if self.exited.is_set():
            await self._after()
            return
        _LOG.warning("session process %d was killed and has not ended within %g s", self.pid, _ENDED_WITHIN_S)
        self._spawn(self._later())

    async def _later(self) -> None:
        """A process in the middle of a system call that cannot be interrupted ends when that does."""
        await self.exited.wait()
        await self._after()

    async def _after(self) -> None:
        os.close(self._last_word)
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
        if self.cgroup:
            await asyncio.to_thread(self._released)
        else:
            self._released()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), _ENDED_WITHIN_S)


def make_directory(root: Path) -> Path:
    """A directory that the server and one session share."""
    return Path(tempfile.mkdtemp(prefix="k", dir=root / "sessions"))
