"""Bounds of what a Jupyter kernel sends: our half in the kernel keeps to them, so that what does not is no answer of ours.

A cell can write to its kernel's sockets whatever it likes. A few megabytes of JSON can stand for a gigabyte of empty lists,
and reading them would stop every other session meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from code_sandbox.wire import MAX_CHARS

MAX_MESSAGE_BYTES = 64 << 20
"""An image of 12.8 megapixels that no compression helps has 37 MiB."""
MAX_PARTS = 16
"""Of one message; Jupyter's have six, and one more for an image."""
_MAX_JSON_BYTES = 20 << 20
"""Of its parts without the images, which hold at most two texts of `MAX_CHARS` at six bytes a character."""
_MAX_IMAGE_BYTES = MAX_MESSAGE_BYTES - _MAX_JSON_BYTES
_MAX_VALUES = 20_000
_PIXELS = ("image/png", "image/jpeg")
_DROPPED = "[an image of {size:,} bytes is not shown; show a smaller one]"
_BROKEN = "[an image that is no base64 is not shown]"


class TooMuch(ValueError):
    """A message with more in it than any of ours."""


def check_parts(parts: Sequence[bytes]) -> None:
    """Refuse a message before any of it is read.

    Args:
        parts: Its signature, four parts of JSON, and what an image has of bytes.

    Raises:
        TooMuch: It has more JSON than any message of ours.
    """
    if (size := sum(map(len, parts[:5]))) > _MAX_JSON_BYTES:
        raise TooMuch(f"a message has {size:,} bytes of JSON, more than {_MAX_JSON_BYTES:,}")


def image_of(message: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """The kind and the bytes of the image that a message shows; None if it shows none.

    Raises:
        LookupError, TypeError: No kernel of ours has sent it.
    """
    for mime in _PIXELS:
        if mime in message["content"]["data"]:
            return mime, bytes(message["buffers"][message["content"]["data"][mime]])
    return None


def unpacked(data: bytes) -> Any:
    """What one JSON part of a message holds.

    Raises:
        TooMuch: More values than any message of a kernel of ours has.
        ValueError: It is no JSON.
        RecursionError: It is nested without end.
    """
    if _num_values(data) > _MAX_VALUES and _num_values_outside_texts(data) > _MAX_VALUES:
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

    session = kernel.session
    pack, send = session.pack, session.send

    def send_image_as_bytes(stream: Any, message: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(message, dict) and isinstance(data := message["content"].get("data"), dict):
            data, images = _without_images(data)
            message |= {"content": message["content"] | {"data": data}, "buffers": images}
        return send(stream, message, *arguments, **options)

    session.pack = lambda content: pack(_shortened(content))
    session.send = send_image_as_bytes
    output = kernel.iopub_thread
    # By itself it drops what does not fit into the queue, a cell's end too, for which the server would wait.
    output.schedule(lambda: output.socket.setsockopt(SocketOption.XPUB_NODROP, 1))


def _shortened(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    kept = {name: _text(value) for name, value in content.items()}
    if isinstance(data := content.get("data"), dict):
        kept["metadata"] = {}
        kept["data"] = {mime: _shown(value) for mime, value in data.items()}
    if isinstance(traceback := content.get("traceback"), list):
        kept["traceback"] = [_text("\n".join(map(str, traceback)))]
    return kept


def _without_images(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """What is shown, with numbers in place of images; and the bytes of each."""
    kept: dict[str, Any] = {}
    images: list[bytes] = []
    for mime, value in data.items():
        if mime not in _PIXELS:
            kept[mime] = value
            continue
        try:
            image = value if isinstance(value, bytes) else base64.b64decode(value)
        except (binascii.Error, TypeError, ValueError):
            return {"text/plain": _BROKEN}, []
        if len(image) > _MAX_IMAGE_BYTES:
            return {"text/plain": _DROPPED.format(size=len(image))}, []
        kept[mime] = len(images)
        images.append(image)
    return kept, images


def _shown(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return _text(value[: MAX_CHARS + 1]) if isinstance(value, str) else ""  # such as a tree, of which the kind is shown


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > 2 * MAX_CHARS:
        value = value[: MAX_CHARS + 1] + value[-MAX_CHARS // 2 :]
    return value.encode("utf-8", "replace").decode()  # half a surrogate cannot be sent
