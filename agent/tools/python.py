"""`<code>`: run Python in the episode's sandbox session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import SandboxAway, ToolError, ToolUnavailable
from agent.images import ImageFile
from agent.protocol import render_code_observation
from agent.settings import AgentSettings
from agent.tools import PROGRAM_LEFT_S, CellRunner, Sandbox, Tool, ToolContext, ToolResult
from code_sandbox.errors import SandboxError, SandboxRequestRefused
from code_sandbox.wire import ExecuteResult

_SHOW = "__import__('IPython.display').display.display(__import__('PIL.Image').Image.open({path!r}))"
"""Leaves no name behind in the model's namespace."""


class PythonTool:
    """One stateful session, opened at the first call: an episode that never computes costs no kernel."""

    def __init__(self, sandbox: Sandbox, settings: AgentSettings, *, images: tuple[ImageFile, ...] = ()) -> None:
        self._sandbox = sandbox
        self._images = images
        self._settings = settings
        self._session: CellRunner | None = None

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Run the code as written."""
        code = arguments.get("code")
        if not isinstance(code, str):
            raise ToolError("Invalid tool call parameters: python needs a string `code`")
        left_s = PROGRAM_LEFT_S.get()
        settings = self._settings
        timeout_s = settings.python_timeout_s if left_s is None else min(settings.python_timeout_s, left_s)
        try:
            if self._session is None:
                self._session = await self._sandbox.open([image.data for image in self._images])
            result: ExecuteResult = await self._session.execute(
                code,
                timeout_s=timeout_s,
                # The sandbox bounds what it sends by the same numbers as the loop bounds what is shown.
                max_images=settings.max_observation_images,
                max_chars=settings.max_observation_chars,
            )
        except SandboxError as error:
            raise _outage(error) from error
        return self._render(result, timeout_s)

    async def read_image(self, path: str) -> ImageFile:
        """An image file that the code saved, at most 16 MP as the model would see it.

        Raises:
            ToolError: There is none.
            ToolUnavailable: Our outage.
        """
        if self._session is None:
            raise ToolError(f"no image {path!r}: no code was run yet")
        try:
            result: ExecuteResult = await self._session.execute(
                _SHOW.format(path=path), timeout_s=self._settings.python_timeout_s
            )
        except SandboxError as error:
            raise _outage(error) from error
        if result.error is not None or not result.images:
            reason = result.error.name if result.error is not None else result.status
            raise ToolError(f"no image {path!r} in the notebook ({reason})")
        return ImageFile(result.images[0].data)

    def _render(self, result: ExecuteResult, timeout_s: float) -> ToolResult:
        stderr = [result.stderr.rstrip("\n")]
        error = ""
        if result.error is not None:
            stderr.append(result.error.traceback)
            error = result.error.name
        elif result.status == "timeout":
            stderr.append(f"TimeoutError: the code ran longer than {timeout_s:g} s and was stopped")
            error = "TimeoutError"
        elif result.status == "killed":
            stderr.append("KernelDied: the process was killed, for example for using too much memory")
            error = "KernelDied"
        if result.state_lost:
            stderr.append("All variables are lost; the images are loaded again.")
        images = [ImageFile(image.data) for image in result.images]
        stdout = [result.stdout.rstrip("\n")]
        # Of something that is shown as an image, the text is only its name.
        if self._settings.show_last_value and not (images and result.result.startswith("<")):
            stdout.append(result.result)
        observation = render_code_observation(stdout=_lines(stdout), stderr=_lines(stderr), images=images)
        # The clock of the server may stop a little short of the limit at which it stopped the program.
        program_s = max(result.execution_time_s, timeout_s if result.status == "timeout" else 0.0)
        return ToolResult(observation, error, program_s)

    async def close(self) -> None:
        """Close the session, if one was opened."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _lines(parts: list[str]) -> str:
    return "\n".join(part for part in parts if part)


def _outage(error: SandboxError) -> ToolUnavailable:
    """Ours either way; one that a new session cures is told from one that every session would meet."""
    kind = ToolUnavailable if isinstance(error, SandboxRequestRefused) else SandboxAway
    return kind(f"sandbox: {error}")


def build(context: ToolContext) -> Tool:
    """Raises:
    ValueError: No sandbox.
    """
    if context.sandbox is None:
        raise ValueError("the tool `python` needs a sandbox: set CODE_SANDBOX_URL or leave it out of `tools`")
    tool = PythonTool(context.sandbox, context.settings, images=context.images)
    context.state.read_image = tool.read_image
    return tool
