"""Bounds of what a Jupyter kernel sends: our half in the kernel keeps to them, so that what does not is no answer of ours.

A cell can write to its kernel's sockets whatever it likes. A few megabytes of JSON can stand for a gigabyte of empty lists,
and reading them would stop every other session meanwhile.
"""

from __future__ import annotations

import json
from typing import Any

from code_sandbox.wire import MAX_CHARS

MAX_MESSAGE_BYTES = 64 << 20
"""An image of 12.8 megapixels that no compression helps has 49 MiB in base64."""
MAX_PARTS = 16
"""Of one message; Jupyter's have six or seven."""
_MAX_IMAGE_CHARS = MAX_MESSAGE_BYTES - (4 << 20)
_MAX_VALUES = 300_000
_MAX_TEXT_BYTES = 20 << 20
_DROPPED = "[an image of {size:,} bytes is not shown; show a smaller one]\n"


class TooMuch(ValueError):
    """A message with more in it than any of ours."""


def unpacked(data: bytes) -> Any:
    """What one JSON part of a message holds.

    Raises:
        TooMuch: More values than any message of a kernel of ours has.
        ValueError: It is no JSON.
        RecursionError: It is nested without end.
    """
    # Only an image is that long, and it has nothing to escape.
    is_slow = len(data) > _MAX_TEXT_BYTES and data.count(b"\\") > _MAX_VALUES
    if is_slow or (_num_values(data) > _MAX_VALUES and _num_values_outside_texts(data) > _MAX_VALUES):
        raise TooMuch(f"a message of {len(data):,} bytes holds more than {_MAX_VALUES:,} values")
    return json.loads(data)


def _num_values(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _num_values_outside_texts(data: bytes) -> int:
    # What is inside texts may be a long table that a cell has printed. Reading it as JSON does would take seconds.
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    num_quotes = data.count(b'"')
    return num_quotes if num_quotes > 2 * _MAX_VALUES else _num_values(b"".join(data.split(b'"')[::2]))


def keep_to_bounds(kernel: Any) -> None:
    """Let a kernel shorten what it sends, and wait where the server is slower.

    Args:
        kernel: `ipykernel.kernelbase.Kernel`, whose Jupyter session all its output goes through.
    """
    from zmq.constants import SocketOption

    pack = kernel.session.pack
    kernel.session.pack = lambda content: pack(_shortened(content))
    output = kernel.iopub_thread
    # By itself it drops what does not fit into the queue, a cell's end too, for which the server would wait.
    output.schedule(lambda: output.socket.setsockopt(SocketOption.XPUB_NODROP, 1))


def _shortened(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    kept = {name: _text(value) for name, value in content.items()}
    if isinstance(data := content.get("data"), dict):
        kept["metadata"] = {}
        kept["data"] = {mime: _shown(mime, value) for mime, value in data.items()}
        if large := [value for mime, value in data.items() if kept["data"][mime] is None]:
            kept["data"] = {mime: value for mime, value in kept["data"].items() if value is not None}
            kept["data"]["text/plain"] = _DROPPED.format(size=len(large[0]) * 3 // 4).rstrip()
    if isinstance(traceback := content.get("traceback"), list):
        kept["traceback"] = [_text("\n".join(map(str, traceback)))]
    return kept


def _shown(mime: str, value: Any) -> Any:
    if mime.startswith("image/") and mime != "image/svg+xml":
        return value if len(value) <= _MAX_IMAGE_CHARS else None
    return _text(value) if isinstance(value, str) else ""  # such as a tree of JSON, of which only the kind is shown


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > 2 * MAX_CHARS:
        value = value[: MAX_CHARS + 1] + value[-MAX_CHARS // 2 :]
    return value.encode("utf-8", "replace").decode()  # half a surrogate cannot be sent
