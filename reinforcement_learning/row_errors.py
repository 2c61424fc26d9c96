"""The error of a row that cannot be trained on."""

from __future__ import annotations


class RowError(ValueError):
    """A row that cannot be trained on.

    Args:
        kind: The same few words for all rows with this fault, to count them by.
        detail: What stands there, what was expected, and what to do.
        file: The row's file.
        row: Its number in the file, from 0.
    """

    def __init__(self, kind: str, detail: str, *, file: str = "", row: int = -1) -> None:
        super().__init__(f"{file}, row {row}: {kind}: {detail}" if file else f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.file = file
        self.row = row
