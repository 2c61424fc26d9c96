"""The processes that sessions live in, some of them kept ready."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from code_sandbox.errors import KernelStartFailed, ZygoteEnded
from code_sandbox.server.forked import ForkedKernel
from code_sandbox.server.kernels import JupyterKernel, new_context
from code_sandbox.server.settings import ServerSettings
from code_sandbox.server.zygote_client import Zygote

_LOG = logging.getLogger(__name__)
_RETRY_S = 5.0
_LOOK_S = 1.0

AnyKernel = ForkedKernel | JupyterKernel


class KernelPool:
    """Starts processes of the configured back-end."""

    def __init__(self, settings: ServerSettings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self.zygote = Zygote(
            root,
            backend=settings.backend,
            limits=settings.session_limits(),
            uid_base=settings.uid_base,
            without=settings.without,
            groups=settings.cgroups,
        )
        self._context = new_context()
        self._starts = asyncio.Semaphore(settings.max_starting_kernels)
        self._spares: list[AnyKernel] = []
        self._spare_taken = asyncio.Event()

    async def take(self) -> AnyKernel:
        """A process that no session has yet.

        Raises:
            KernelStartFailed: None could be started.
        """
        while self._spares:
            kernel = self._spares.pop(0)
            self._spare_taken.set()
            if not kernel.exited.is_set():
                return kernel
            await kernel.kill()
        return await self.start_one()

    async def start_one(self) -> AnyKernel:
        """A new process.

        Raises:
            KernelStartFailed: It did not come up.
        """
        async with self._starts:
            try:
                return await self._start_one()
            except ZygoteEnded:
                # Nothing has run, and the next one is a new one.
                return await self._start_one()

    async def _start_one(self) -> AnyKernel:
        timeout_s = self._settings.start_timeout_s
        if self._settings.backend == "jupyter":
            return await JupyterKernel.start(self.zygote, self._context, root=self._root, timeout_s=timeout_s)
        return await ForkedKernel.start(self.zygote, root=self._root, timeout_s=timeout_s)

    async def keep_spares(self) -> None:
        """Start processes in advance until cancelled."""
        while True:
            if len(self._spares) >= self._settings.spare_kernels:
                self._spare_taken.clear()
                await self._spare_taken.wait()
            try:
                self._spares.append(await self.start_one())
            except KernelStartFailed as error:
                _LOG.warning("no spare: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def keep_well(self) -> None:
        """Until cancelled: a zygote that somebody stops goes on, one that is killed is started again, with new spares."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.zygote.state == "stopped":
                _LOG.warning("the zygote was stopped by somebody; it goes on")
                self.zygote.nudge()
            elif self.zygote.state == "ended":
                try:
                    await self.zygote.start()
                except KernelStartFailed as error:
                    _LOG.warning("no zygote: %s", error)
                    await asyncio.sleep(_RETRY_S)
                dead = [kernel for kernel in self._spares if kernel.exited.is_set()]
                self._spares = [kernel for kernel in self._spares if kernel not in dead]
                self._spare_taken.set()
                await asyncio.gather(*(kernel.kill() for kernel in dead), return_exceptions=True)

    async def stop(self) -> None:
        """End the zygote and every process it has forked."""
        await asyncio.gather(*(kernel.kill() for kernel in self._spares), return_exceptions=True)
        self._spares.clear()
        await self.zygote.stop()
        self._context.destroy(linger=0)
