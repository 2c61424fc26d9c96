"""Decoding msgpack of strangers within bounds: a few bytes can say an empty list, and a list takes fifty times as many."""

from __future__ import annotations

from typing import Any

import msgpack


def unpacked(body: bytes, *, most_nested: int, longest: int) -> Any:
    """What a msgpack body holds.

    Args:
        body: All of it.
        most_nested: Lists and maps in it, together.
        longest: Entries of one of them.

    Raises:
        ValueError: It is none, or has more.
    """
    nested = 0

    def counted(value: Any) -> Any:
        nonlocal nested
        nested += 1
        if nested > most_nested:
            raise ValueError(f"more than {most_nested} lists and maps")
        return value

    return msgpack.unpackb(
        body, max_array_len=longest, max_map_len=longest, max_ext_len=0, list_hook=counted, object_hook=counted
    )
