"""Every row through the readers that will train on it, with every image decoded. Exit status 1 if one is broken.

    deepeyes data validate datasets/rl datasets/sft/json --out problems.jsonl

RL rows go through reinforcement_learning.rows and the check of the dry run, conversations through cold_start.check_data; the
limits of a recipe (tokens of a prompt, `cutoff_len`) are the business of its own dry run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from agent.files import whole_file
from agent.images import ImageFile, UnreadableImage
from code_sandbox.command_line import CommandParser, add_json_option, print_json, program, sign_of_life
from data.look.command import add_paths, look_options, printable
from data.look.files import RowsFile, data_files
from data.look.rows import WHOLE_FILE, LookedRow, LookOptions, RowProblem, in_threads, rows_of
from reinforcement_learning.rewards import load_reward


def problems_of(files: Sequence[RowsFile], options: LookOptions, counts: Counter[str] | None = None) -> Iterator[RowProblem]:
    """Everything that is wrong with files, in the order of their rows.

    Args:
        files: Of `data_files`.
        options: Where images lie.
        counts: Counts `rows`, `broken` (rows) and `images` on the way.
    """
    counts = counts if counts is not None else Counter()
    for file in files:
        seen = 0
        for number, images, problems in in_threads(checked, rows_of(file, options)):
            if number != WHOLE_FILE:
                seen += 1
                counts["rows"] += 1
                counts["broken"] += bool(problems)
            counts["images"] += images
            yield from problems
        if not seen:
            yield RowProblem(str(file.path), WHOLE_FILE, "file is empty", "it holds no row; is it the right file?")


def checked(row: LookedRow, *, quickly: bool = False) -> tuple[int, int, list[RowProblem]]:
    """The number of a row, the number of its images, and everything that is wrong with it.

    Args:
        row: Its images are decoded.
        quickly: Believe plain images whose end says that they are whole.
    """
    problems = list(row.problems)
    if row.data_source and row.messages:
        try:
            load_reward(row.data_source)
        except LookupError as error:
            problems.append(RowProblem(row.file, row.row, "unknown data source", str(error)))
    for number, image in enumerate(row.images, start=1):
        if (told := _image_problem(image, quickly)) is not None:
            detail = f"image {number} of {len(row.images)}: {told}; replace the file"
            problems.append(RowProblem(row.file, row.row, "image is broken", detail))
    return row.row, len(row.images), problems


def _image_problem(image: ImageFile, quickly: bool) -> str | None:
    try:
        image.check(quickly=quickly)
    except UnreadableImage as error:
        return str(error)
    return None


def main(arguments: list[str] | None = None, prog: str = "deepeyes data validate") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    add_paths(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what is wrong there, a JSON object a line")
    add_json_option(parser)
    given = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    with program(prog), sign_of_life(lambda: f"{counts['rows']:,} rows read"):
        files = data_files(given.paths)
        found = problems_of(files, look_options(given.image_root), counts)
        if given.out is not None:
            kinds, first = _written(found, given.out)
        else:
            kinds, first = _tally(found) if given.json else _printed(found)
    if given.json:
        problems = {kind: {"number": number, "example": first[kind]} for kind, number in kinds.most_common()}
        print_json({**counts, "files": len(files), "problems": problems})
        sys.exit(int(bool(kinds)))
    for kind, number in kinds.most_common():
        sys.stdout.write(f"{number:,}: {kind}{f'; such as {first[kind]}' if given.out is not None else ''}\n")
    where = f"; all of them are in {given.out}" if given.out is not None and kinds else ""
    sys.stdout.write(
        f"{counts['rows']:,} rows in {len(files)} files, {counts['images']:,} images decoded, {counts['broken']:,} rows "
        f"broken{where}\n"
    )
    sys.exit(int(bool(kinds)))


def _printed(found: Iterable[RowProblem]) -> tuple[Counter[str], dict[str, str]]:
    def said() -> Iterator[RowProblem]:
        for problem in found:
            sys.stdout.write(printable(str(problem)) + "\n")
            yield problem

    return _tally(said())


def _written(found: Iterable[RowProblem], path: Path) -> tuple[Counter[str], dict[str, str]]:
    with whole_file(path) as file:
        return _tally(_to_file(found, file))


def _to_file(found: Iterable[RowProblem], file: IO[bytes]) -> Iterator[RowProblem]:
    for problem in found:
        file.write(json.dumps(asdict(problem), ensure_ascii=True).encode() + b"\n")
        yield problem


def _tally(found: Iterable[RowProblem]) -> tuple[Counter[str], dict[str, str]]:
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    for problem in found:
        kinds[problem.kind] += 1
        first.setdefault(problem.kind, printable(str(problem)))
    return kinds, first
