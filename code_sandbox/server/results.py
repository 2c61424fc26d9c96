"""What a session sent becomes what a caller gets: bounded, checked, and comparable."""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Sequence

from code_sandbox.server.cells import CellOutput
from code_sandbox.wire import CellError, CellImage, ExecuteRequest, ExecuteResult

_MIMES = ("image/png", "image/jpeg")
_PNG_HEAD_BYTES = 33
_MOST_SEGMENTS = 1000
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
    if mime not in _MIMES:
        return f"its type is {mime[:40]!r}"
    if len(data) > max_bytes:
        return f"it has {len(data):,} bytes; the limit is {max_bytes:,}"
    size = _png_size(data) if mime == "image/png" else _jpeg_size(data)
    if size is None:
        return f"it is no {mime}"
    width_px, height_px = size
    if width_px * height_px > max_pixels:
        return f"it has {width_px}x{height_px} pixels; the limit is {max_pixels:,}"
    return CellImage.model_validate({"mime": mime, "data": data, "width_px": width_px, "height_px": height_px})


def _png_size(data: bytes) -> tuple[int, int] | None:
    """(width_px, height_px) of a PNG's header; None if it is none.

    Not through Pillow, which unpacks what stands before the pixels, up to 64 MB of it, and that on the event loop.
    """
    if len(data) < _PNG_HEAD_BYTES or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return None
    return _positive(*struct.unpack_from(">II", data, 16))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The same of a JPEG's first frame (ITU T.81, annex B)."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height_px, width_px = struct.unpack_from(">HH", data, at + 5)
            return _positive(width_px, height_px)
        at += 2 + length
    return None


def _positive(width_px: int, height_px: int) -> tuple[int, int] | None:
    return (width_px, height_px) if width_px and height_px else None


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
