"""One row as a person reads it.

    deepeyes data show datasets/rl/search.parquet 17 --image-out images

Rows are counted from 0, as in the messages of the dry run and of `deepeyes data validate`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.images import ImageFile, UnreadableImage
from code_sandbox.command_line import CommandParser, program
from data.look.command import add_image_root, look_options, printable
from data.look.files import NothingToLookAt, data_files
from data.look.rows import WHOLE_FILE, LookedRow, rows_of


def main(arguments: list[str] | None = None, prog: str = "deepeyes data show") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("file", help="parquet, JSON or JSON lines, or a store's STORE/sets/NAME")
    parser.add_argument("row", type=int, help="its number, from 0")
    parser.add_argument("--image-out", type=Path, metavar="FOLDER", help="write its images there, as they are")
    add_image_root(parser)
    given = parser.parse_args(arguments)
    with program(prog):
        (file, *others) = data_files([given.file])
        if others:
            raise NothingToLookAt(f"{given.file} is {len(others) + 1} files; name one")
        found = list(rows_of(file, look_options(given.image_root), wanted=[given.row]))
        row = next((one for one in found if one.row == given.row), None)
        if row is None:
            told = next((problem.detail for one in found for problem in one.problems if one.row == WHOLE_FILE), "")
            raise LookupError(f"{given.file} has no row {given.row}; they are counted from 0{f'. {told}' if told else ''}")
        sys.stdout.writelines(printable(line) + "\n" for line in _lines(row))
        if given.image_out is not None:
            for path in write_images(row, given.image_out):
                sys.stdout.write(f"{path}\n")


def write_images(row: LookedRow, folder: Path) -> list[Path]:
    """Write a row's images as they are; where they lie.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(row.images, start=1):
        path = folder / f"{Path(row.file).stem}_{row.row}_{number}{_ending(image)}"
        path.write_bytes(image.data)
        paths.append(path)
    return paths


def _ending(image: ImageFile) -> str:
    try:
        return f".{image.mime.removeprefix('image/')}"
    except UnreadableImage:
        return ".broken"


def _lines(row: LookedRow) -> Iterator[str]:
    yield f"{row.file}, row {row.row}"
    for name, value in (("data_source", row.data_source), ("source", row.source)):
        if value:
            yield f"{name}: {value}"
    for message in row.messages:
        yield f"--- {message['role']}"
        yield message["content"]
    if row.gold:
        yield "--- gold"
        yield from row.gold
    if row.images:
        yield "--- images"
    for number, image in enumerate(row.images, start=1):
        whose = "question" if number <= row.question_images else "tool"
        yield f"{number}: {described(image)}, {whose}, sha256 {image.sha256}"
    if row.extra:
        yield "--- extra"
        yield json.dumps(dict(row.extra), ensure_ascii=False, indent=1, default=str)
    for problem in row.problems:
        yield f"BROKEN: {problem.kind}: {problem.detail}"


def described(image: ImageFile) -> str:
    """An image's size and kind, or what is wrong with it."""
    try:
        wide, high = image.size
        return f"{wide}x{high} px, {image.mime}, {len(image.data):,} bytes"
    except UnreadableImage as error:
        return str(error)
