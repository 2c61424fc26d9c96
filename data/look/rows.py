"""Rows of training files as their readers see them, one after the other, in one form for both kinds."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from agent.image_paths import places_by_ending
from agent.images import ImageFile
from agent.json_items import BYTE_ORDER_MARK, json_items
from agent.messages import IMAGE_PLACEHOLDER
from agent.recipes import RecipeError
from cold_start.check_data import conversation_problems
from data.look.files import RowsFile
from data.look.stored import stored_images
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_files import read_groups
from reinforcement_learning.row_images import images_of
from reinforcement_learning.rows import RowOptions, read_row

T = TypeVar("T")
R = TypeVar("R")
_MORE_COLUMNS = ("source", "licence", "group")
_IN_FLIGHT_PER_THREAD = 3
_NO_PATH = re.compile(r"data:|https?://|[0-9a-f]{64}\Z")
WHOLE_FILE = -1
"""Number of the row where the file as a whole is meant."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row, or a file, cannot be trained on."""

    file: str
    row: int
    kind: str
    """The same few words for all rows with this fault."""
    detail: str

    def __str__(self) -> str:
        where = self.file if self.row == WHOLE_FILE else f"{self.file}, row {self.row}"
        return f"{where}: {self.kind}: {self.detail}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedRow:
    """A row, as far as it can be read."""

    file: str
    row: int
    """Its number in the file, from 0."""
    kind: str
    """`rl` or `sft`."""
    messages: tuple[Mapping[str, str], ...] = ()
    """`{role, content}`; each `<image>` stands for the next of `images`."""
    images: tuple[ImageFile, ...] = ()
    question_images: int = 0
    """How many of them, from the first, are the question's; the others are what tools showed."""
    gold: tuple[str, ...] = ()
    data_source: str = ""
    source: str = ""
    licence: str = ""
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[RowProblem, ...] = ()
    """Seen without decoding an image."""

    @property
    def question(self) -> str:
        """What is asked first, without placeholders."""
        asked = next((one["content"] for one in self.messages if one.get("role") == "user"), "")
        return asked.replace(IMAGE_PLACEHOLDER, "").strip()


@dataclass(frozen=True, slots=True)
class LookOptions:
    """Where images of relative paths lie."""

    image_roots: tuple[str, ...] = ()
    """After the folder of the file and the one above it, which is where published conversations mean."""
    believe_sizes: bool = False
    """Take the sizes of a store's images from their rows, and leave the files unread."""
    by_ending: bool = False
    """Find an image by the end of its path, where the path is one of its author's machine; only below those folders."""


def rows_of(
    file: RowsFile, options: LookOptions, wanted: Collection[int] | None = None, *, first: int = 0
) -> Iterator[LookedRow]:
    """The rows of a file; one that stands for the whole file has the number WHOLE_FILE and a problem.

    Args:
        file: RL rows or conversations.
        options: Where images lie.
        wanted: Numbers of rows; None is all of them.
        first: Rows before it are passed over.
    """
    try:
        for row in (_rl_rows if file.kind == "rl" else _conversations)(file.path, options, wanted, first):
            if row.row >= first or row.row == WHOLE_FILE:
                yield row
    except (RecipeError, OSError) as error:
        yield _broken(file, WHOLE_FILE, "file cannot be read", str(error))


def count_rows(file: RowsFile) -> int:
    """How many rows a file has; of one that cannot be read, 0."""
    import pyarrow
    import pyarrow.parquet

    try:
        if file.kind == "rl":
            with pyarrow.parquet.ParquetFile(file.path) as parquet:
                return int(parquet.metadata.num_rows)
        return sum(1 for _ in json_items(file.path))
    except (pyarrow.ArrowException, OSError):
        return 0


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results in the order of the items, of which no more are held than threads need.

    Decoding and reading parquet run outside the interpreter's lock.
    """
    threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _IN_FLIGHT_PER_THREAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _broken(file: RowsFile, row: int, kind: str, detail: str) -> LookedRow:
    problem = RowProblem(str(file.path), row, kind, detail)
    return LookedRow(file=str(file.path), row=row, kind=file.kind, problems=(problem,))


# ---- RL ----------------------------------------------------------------------------------------------------------------


def _rl_rows(path: Path, options: LookOptions, wanted: Collection[int] | None, begin: int) -> Iterator[LookedRow]:
    own = RowOptions(image_roots=options.image_roots)
    groups = _groups_with(path, wanted, begin) if wanted is not None or begin else None
    last = None if wanted is None else max(wanted, default=-1)
    more = (*_MORE_COLUMNS, *(("image_sizes",) if options.believe_sizes else ()))
    for number, raw in read_groups(path, groups, (*own.columns, *more)):
        if last is not None and number > last:
            return
        if (wanted is None or number in wanted) and number >= begin:
            yield _rl_row(raw, path, number, own, options)


def _groups_with(path: Path, wanted: Collection[int] | None, begin: int) -> list[int]:
    """Row groups in which wanted rows stand, from one on."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError) as error:
        raise RecipeError(f"{path} is no readable parquet file ({error}); was its download cut off?") from error
    starts = [sum(sizes[:group]) for group in range(len(sizes) + 1)]
    return [
        group
        for group, (start, end) in enumerate(pairwise(starts))
        if end > begin and (wanted is None or any(start <= one < end for one in wanted))
    ]


def _rl_row(raw: Mapping[str, Any], path: Path, number: int, options: RowOptions, how: LookOptions) -> LookedRow:
    source, licence, group = (_text_of(raw, name) for name in _MORE_COLUMNS)
    unread = stored_images(raw, path.resolve().parent) if how.believe_sizes else None
    try:
        given = _with_places(raw, path, options.image_roots) if how.by_ending else _without(raw, unread)
        content = read_row(given, file=str(path), row=number, options=options)
    except RowError as error:
        problem = RowProblem(str(path), number, error.kind, error.detail)
        data_source = raw.get("data_source")
        return LookedRow(
            file=str(path),
            row=number,
            kind="rl",
            data_source=data_source if isinstance(data_source, str) else "",
            problems=(problem,),
            source=source,
            licence=licence,
            group=group,
        )
    return LookedRow(
        file=str(path),
        row=number,
        kind="rl",
        messages=content.messages,
        images=unread if unread is not None else tuple(ImageFile(data) for data in content.images),
        question_images=len(content.images),
        gold=content.gold,
        data_source=content.data_source,
        extra={**content.extra, "item_id": content.item_id},
        source=source,
        licence=licence,
        group=group,
    )


def _with_places(raw: Mapping[str, Any], path: Path, roots: Sequence[str]) -> Mapping[str, Any]:
    """The row with its image files where they are, below the folder of the row's file or an image root.

    Raises:
        RowError: One is in none of them.
    """
    folders = (path.resolve().parent, *(Path(root).resolve() for root in roots))
    return {**raw, "images": [_with_place(one, folders) for one in images_of(raw.get("images"))]}


def _with_place(image: Any, folders: tuple[Path, ...]) -> Any:
    text = image.get("path") if isinstance(image, Mapping) and not image.get("bytes") else image
    if not isinstance(text, str) or not text or "\0" in text or _NO_PATH.match(text):
        return image
    place = next((one for one in places_by_ending(text.removeprefix("file://"), folders) if one.is_file()), None)
    if place is None:
        where = ", ".join(map(str, folders))
        told = f"{text[:200]!r} is not there; looked in {where}; --image-root names another folder"
        raise RowError("image is missing", told)
    return str(place)


def _without(raw: Mapping[str, Any], unread: Sequence[ImageFile] | None) -> Mapping[str, Any]:
    """The row for its reader, with something in the place of each image that is not to be read."""
    return raw if unread is None else {**raw, "images": [b"unread"] * len(unread)}


def _text_of(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


# ---- conversations ------------------------------------------------------------------------------------------------------


def _conversations(path: Path, options: LookOptions, wanted: Collection[int] | None, begin: int) -> Iterator[LookedRow]:
    file = RowsFile(path, "sft")
    folders = (path.resolve().parent, path.resolve().parent.parent, *(Path(root) for root in options.image_roots))
    mended: set[str] = set()
    for item in json_items(path):
        for note in item.mended:
            if note not in (*mended, BYTE_ORDER_MARK) and wanted is None:
                mended.add(note)
                where = f"it has {note}, first at element {item.number}"
                detail = f"{where}; cold start and `deepeyes data prepare sft` mend that, other programs may not"
                yield _broken(file, WHOLE_FILE, "no list of strict JSON", detail)
        if (wanted is not None and item.number not in wanted) or item.number < begin:
            continue
        if item.problem:
            yield _broken(file, item.number, "element cannot be read", item.problem)
        else:
            yield _conversation(item.value, path, item.number, folders, options)


def _conversation(value: Any, path: Path, number: int, folders: tuple[Path, ...], options: LookOptions) -> LookedRow:
    said = [RowProblem(str(path), number, _kind_of(reason), reason) for reason in conversation_problems(value)]
    messages = _messages(value)
    unread = stored_images(value, folders[0]) if options.believe_sizes and isinstance(value, dict) else None
    images, missing = (unread, []) if unread is not None else _images(value, folders, options.by_ending)
    said += [RowProblem(str(path), number, kind, detail) for kind, detail in missing]
    more = {key: one for key, one in value.items() if key not in ("messages", "images")} if isinstance(value, dict) else {}
    source, licence, group = (_text_of(more, name) for name in _MORE_COLUMNS)
    asked = 0
    for message in messages:
        if message["role"] == "assistant":
            break
        asked += message["content"].count(IMAGE_PLACEHOLDER)
    return LookedRow(
        file=str(path),
        row=number,
        kind="sft",
        messages=messages,
        images=tuple(images),
        question_images=min(asked, len(images)),
        extra=more,
        problems=tuple(said),
        source=source,
        licence=licence,
        group=group,
    )


def _messages(value: Any) -> tuple[Mapping[str, str], ...]:
    given = value.get("messages") if isinstance(value, dict) else None
    return tuple(
        {"role": str(one.get("role")), "content": one["content"]}
        for one in (given if isinstance(given, list) else ())
        if isinstance(one, dict) and isinstance(one.get("content"), str)
    )


def _images(value: Any, folders: tuple[Path, ...], by_ending: bool) -> tuple[list[ImageFile], list[tuple[str, str]]]:
    given = value.get("images") if isinstance(value, dict) else None
    found: list[ImageFile] = []
    problems: list[tuple[str, str]] = []
    for path in given if isinstance(given, list) else ():
        if not isinstance(path, str) or not path or "\0" in path:
            continue  # the check of the text has said so
        places = places_by_ending(path, folders) if by_ending else (folder / path for folder in folders)
        place = next((one for one in places if one.is_file()), None)
        if place is None:
            problems.append(("image is missing", f"{path!r} is not there; looked in {', '.join(map(str, folders))}"))
            continue
        try:
            found.append(ImageFile(place.read_bytes()))
        except OSError as error:
            problems.append(("image cannot be read", f"{place}: {error}"))
    return found, problems


def _kind_of(reason: str) -> str:
    """A reason without what differs from row to row."""
    words = reason.split(":")[0].split(";")[0].split()
    return " ".join("N" if any(letter.isdigit() for letter in word) else word for word in words)[:80]
