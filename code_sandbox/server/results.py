"""What a session sent becomes what a caller gets: bounded, checked, and comparable."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Sequence

from PIL import Image

from code_sandbox.pictures import BROKEN
from code_sandbox.server.cells import CellOutput
from code_sandbox.wire import CellError, CellImage, ExecuteRequest, ExecuteResult

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,16}")
_PROGRESS = re.compile(r"\[\d+:\d\d[^\]\n]*\]")
"""The times of a progress bar."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_REPEATED = 5
"""Equal lines in a row above which one is shown, with their number."""


def truncate(text: str, limit: int, what: str = "output") -> str:
    """Cut text to `limit` characters in its middle, with a visible mark: what matters stands at either end."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail]}\n[{what} cut at {limit:,} characters]\n{text[len(text) - tail :]}"


def tidy(text: str) -> str:
    """Text as a terminal leaves it: no escape sequences, overwritten lines as they ended, repeated ones counted."""
    kept: list[str] = []
    lines = (_overwritten(line) for line in _ANSI.sub("", text).replace("\r\n", "\n").split("\n"))
    for line, group in itertools.groupby(lines):
        count = sum(1 for _ in group)
        if count > _REPEATED and line:
            kept += [line, f"[the line above {count:,} times]"]
        else:
            kept += [line] * count
    return "\n".join(kept)


def _overwritten(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "") if "\r" in line else line


def bounded(output: CellOutput, request: ExecuteRequest, *, max_image_bytes: int, replayed: int = 0) -> ExecuteResult:
    """Apply the request's limits and the server's; believes nothing that a session says about its images."""
    limit = request.max_chars
    notes: list[str] = []
    images: list[CellImage] = []
    for mime, data in output.images[: request.max_images]:
        checked = _checked(mime, data, max_image_bytes, request.max_pixels)
        if isinstance(checked, str):
            notes.append(f"[an image was dropped: {checked}]")
        else:
            images.append(checked)
    more = output.more_images + max(0, len(output.images) - request.max_images)
    if more > 0:
        notes.append(f"[{more} more images were dropped]")
    error = None
    if output.error is not None:
        name, message, traceback = output.error
        error = CellError(
            name=name[:200], message=truncate(message, limit), traceback=truncate(traceback, limit, "traceback")
        )
    stderr = truncate(tidy("".join(output.stderr)), limit)
    return ExecuteResult(
        status=output.status,  # type: ignore[arg-type]
        stdout=truncate(tidy("".join(output.stdout)), limit),
        stderr="\n".join(part for part in (stderr.rstrip("\n"), *notes) if part),
        result=truncate(output.result, limit),
        error=error,
        images=images,
        execution_time_s=output.execution_time_s,
        state_lost=output.state_lost,
        replayed=replayed,
    )


def _checked(mime: str, data: bytes, max_bytes: int, max_pixels: int) -> CellImage | str:
    """The image, or why not. Reads the header only: nothing that a cell made is decoded in the server."""
    if mime not in _FORMATS:
        return f"its type is {mime[:40]!r}"
    if len(data) > max_bytes:
        return f"it has {len(data):,} bytes; the limit is {max_bytes:,}"
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[mime]]) as image:
            width_px, height_px = image.size
    except BROKEN as problem:
        return str(problem)
    if width_px * height_px > max_pixels:
        return f"it has {width_px}x{height_px} pixels; the limit is {max_pixels:,}"
    return CellImage.model_validate({"mime": mime, "data": data, "width_px": width_px, "height_px": height_px})


def digest(result: ExecuteResult) -> str:
    """What must be the same when a cell is run again. Addresses of objects and the time it took may differ."""
    error = (result.error.name, result.error.message) if result.error is not None else ("", "")
    parts: Sequence[str] = (result.status, result.stdout, result.stderr, result.result, *error)
    whole = hashlib.sha256()
    for part in parts:
        text = _PROGRESS.sub("[]", _ADDRESS.sub("0x", part)).encode(errors="replace")
        whole.update(len(text).to_bytes(8, "big") + text)
    for image in result.images:
        whole.update(hashlib.sha256(image.data).digest())
    return whole.hexdigest()
