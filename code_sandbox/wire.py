"""What travels between client and server, as JSON. Images are base64 of the original file's bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

SESSION_ID_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CreateSession(_Wire):
    """Ask for one live session with its images preloaded as `image_1` … `image_n`."""

    session_id: str = Field(pattern=SESSION_ID_PATTERN)
    """Chosen by the caller, so that a repeated request finds the session instead of making a second one."""
    images: list[Base64Bytes] = Field(default_factory=list, max_length=64)
    """Files in any format Pillow reads; `image_i` is the i-th as an RGB PIL image."""


class SessionInfo(_Wire):
    """A session that exists."""

    session_id: str
    server_id: str
    lease_s: float
    """Seconds without a call after which the session is closed."""


class ExecuteRequest(_Wire):
    """Run one cell."""

    code: str
    timeout_s: float = Field(60.0, gt=0, le=3600)
    """Wall time for the cell, in seconds; waiting for a free slot does not count."""


class CellError(_Wire):
    """The exception that ended a cell."""

    name: str
    message: str
    traceback: str
    """As a notebook shows it, without colours."""


class CellImage(_Wire):
    """One image that a cell displayed."""

    mime: Literal["image/png", "image/jpeg"]
    data: Base64Bytes
    width_px: int
    height_px: int


CellStatus = Literal["ok", "error", "timeout", "killed"]


class ExecuteResult(_Wire):
    """What one cell did."""

    status: CellStatus
    """`error`: an exception. `timeout`: stopped by us. `killed`: the kernel died, for example of its memory limit."""
    stdout: str = ""
    stderr: str = ""
    result: str = ""
    """`repr` of the last expression, empty if there is none."""
    error: CellError | None = None
    images: list[CellImage] = Field(default_factory=list)
    execution_time_s: float = 0.0
    """Wall time of the cell alone."""
    state_lost: bool = False
    """True when the kernel had to be killed: variables are gone, the images are preloaded again in the next cell."""


class Health(_Wire):
    """`GET /health`."""

    status: Literal["ok", "degraded"]
    server_id: str
    sessions: int
    max_sessions: int
    redis: Literal["ok", "down"]
    isolation: str
    """What keeps a cell from the host: see code_sandbox/README.md."""


class LegacyRequest(BaseModel):
    """`POST /jupyter_sandbox` and `/clear_session` of MultiModal-Jupyter-Sandbox 148d8d8, fast_api_server.py."""

    session_id: str = "JupyterSandboxDefault"
    code: str = ""
    timeout: float = 5.0
