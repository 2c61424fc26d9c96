"""What travels between client and server: JSON, where bytes are base64, or msgpack, where they are bytes."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

SESSION_ID_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"
MSGPACK = "application/msgpack"
JSON = "application/json"
MAX_IMAGES = 64
"""Of a question, and of what one cell shows."""
MAX_TIMEOUT_S = 3600.0
DEFAULT_TIMEOUT_S = 60.0
MAX_CHARS = 1_000_000
DEFAULT_MAX_CHARS = 20_000
DEFAULT_MAX_PIXELS = 16384 * 28 * 28
"""What Qwen2.5-VL's processor lets through. Source: Qwen2.5-VL, preprocessor_config.json, max_pixels 12845056."""


def _from_base64(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Data = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CreateSession(_Wire):
    """`POST /v1/sessions`: one live session with its images preloaded as `image_1` … `image_n`."""

    session_id: str = Field(pattern=SESSION_ID_PATTERN)
    """Chosen by the caller, so that a repeated request finds the session instead of making a second one."""
    images: list[Sha256] = Field(default_factory=list, max_length=MAX_IMAGES)
    """Of files uploaded with `PUT /v1/blobs/{sha256}`; `image_i` is the i-th as an RGB PIL image."""


class MissingBlobs(_Wire):
    """The 409 answer to `CreateSession`: upload these and ask again."""

    error: Literal["MissingBlobs"] = "MissingBlobs"
    message: str
    missing: list[Sha256]


class SessionInfo(_Wire):
    """A session that exists."""

    session_id: str
    server_id: str
    lease_s: float
    """Seconds without a call after which the session is closed."""
    cells: int
    """That it has run: 0 if it is new."""


class ExecuteRequest(_Wire):
    """`POST /v1/sessions/{session_id}/execute`: run one cell."""

    code: str
    timeout_s: float = Field(DEFAULT_TIMEOUT_S, gt=0, le=MAX_TIMEOUT_S)
    """Wall time for the cell, in seconds; waiting for a free slot does not count."""
    queue_timeout_s: float = Field(60.0, gt=0, le=3600)
    """How long the cell may wait for a free slot before it is refused with 503."""
    max_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=28 * 28, le=1 << 62)
    """Of an image that comes back, width times height; larger ones are shrunk inside the sandbox."""
    image_format: Literal["png", "jpeg"] = "png"
    """`png` is exact; `jpeg` (quality 95) takes a tenth of the time for photographs."""
    max_images: int = Field(MAX_IMAGES, ge=0, le=MAX_IMAGES)
    """That come back; how many more there were is said on stderr."""
    max_chars: int = Field(DEFAULT_MAX_CHARS, ge=1, le=MAX_CHARS)
    """Of stdout, stderr, result and traceback each; the rest is cut with a visible mark."""
    cell: int | None = Field(None, ge=0, le=1 << 62)
    """How many cells of this session the caller has had answers to. A session that has moved or lost an answer is then
    noticed; without it, the server makes every cell durable before it answers, which is slower."""


class CellError(_Wire):
    """The exception that ended a cell."""

    name: str
    message: str
    traceback: str
    """As a notebook shows it, without colours."""


class CellImage(_Wire):
    """One image that a cell displayed."""

    mime: Literal["image/png", "image/jpeg"]
    data: Data
    width_px: int
    height_px: int


CellStatus = Literal["ok", "error", "timeout", "killed"]


class ExecuteResult(_Wire):
    """What one cell did."""

    status: CellStatus
    """`error`: an exception. `timeout`: stopped by us. `killed`: the process died, for example of its memory limit; if it
    had died before this cell, the cell did not run."""
    stdout: str = ""
    stderr: str = ""
    result: str = ""
    """`repr` of the last expression, empty if there is none."""
    error: CellError | None = None
    images: list[CellImage] = Field(default_factory=list)
    execution_time_s: float = 0.0
    """Wall time of the cell alone."""
    state_lost: bool = False
    """True when the process had to be killed: variables are gone, the images are preloaded again in the next cell."""
    replayed: int = 0
    """Cells that were run again before this one, because the session moved here from a server that died."""


class Isolation(_Wire):
    """What was measured at start by attempts from inside a session; see code_sandbox/README.md."""

    level: int
    """0 open, 1 confined, 2 isolated, 3 metered."""
    name: str
    refused: list[str]
    """Attempts that failed, as they should."""
    allowed: list[str]
    """Attempts that succeeded."""
    layers: list[str]
    missing: dict[str, str]
    """Layer -> why it is not there."""


class Health(_Wire):
    """`GET /health`."""

    status: Literal["ok", "degraded", "draining"]
    server_id: str
    backend: str
    sessions: int
    max_sessions: int
    running_cells: int
    waiting_cells: int
    redis: Literal["ok", "down"]
    zygote: Literal["ok", "stopped", "ended"] = "ok"
    """The process that sessions are forked from; one that was stopped or killed comes back by itself."""
    outages: dict[str, int] = Field(default_factory=dict)
    """What this server has lost of its own since it started: `processes` (most are made again unseen), `sessions`,
    `zygotes`."""
    model_faults: dict[str, int] = Field(default_factory=dict)
    """Cells that their own code has ended since then, by status: `error`, `timeout`, `killed`."""
    isolation: Isolation


class LegacyRequest(BaseModel):
    """`POST /jupyter_sandbox`, `/run_jupyter` and `/clear_session` of MultiModal-Jupyter-Sandbox 148d8d8."""

    session_id: str = Field("JupyterSandboxDefault", pattern=SESSION_ID_PATTERN)
    code: str = ""
    timeout: float = Field(5.0, gt=0, le=MAX_TIMEOUT_S)
