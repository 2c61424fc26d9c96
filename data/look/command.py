"""What the commands that look at data have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from data.look.rows import LookOptions

_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"}


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Let a command take the data that it looks at."""
    parser.add_argument(
        "paths", nargs="+", help="files (parquet, JSON, JSON lines), patterns, folders of them, or a store's STORE/sets/NAME"
    )
    add_image_root(parser)


def add_image_root(parser: argparse.ArgumentParser) -> None:
    """Let a command be told where images lie."""
    parser.add_argument(
        "--image-root", action="append", default=[], metavar="FOLDER", help="where images of relative paths lie, too"
    )


def look_options(image_roots: Sequence[str]) -> LookOptions:
    """How rows are read."""
    return LookOptions(image_roots=tuple(image_roots))


def printable(text: str) -> str:
    """Text of others as it may be printed: what a terminal would act on is shown, and half surrogates are replaced."""
    return text.encode("utf-8", "replace").decode().translate(_CONTROLS)
