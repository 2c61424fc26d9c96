"""Reads the sources in every form that RL reads, and puts their images into the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.image_library import ImageLibrary
from agent.images import ImageFile, UnreadableImage
from agent.recipes import RecipeError
from curation.errors import CurationError
from curation.folders import StepOutcome
from curation.rows import CuratedRow
from curation.settings import SourceSettings
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_files import file_checksum, find_files, read_groups
from reinforcement_learning.rows import RowContent, RowOptions, read_row


def files_of(source: SourceSettings) -> list[str]:
    """A source's files.

    Raises:
        CurationError: There are none.
    """
    try:
        return find_files([source.path])
    except RecipeError as error:
        raise CurationError(f"source {source.name!r}: {error}") from error


def sources_key(sources: Sequence[SourceSettings]) -> list[Any]:
    """Settings and checksums."""
    return [
        {**source.model_dump(mode="json"), "files": {Path(file).name: file_checksum(file) for file in files_of(source)}}
        for source in sources
    ]


def read_sources(sources: Sequence[SourceSettings], library: ImageLibrary) -> StepOutcome:
    """All rows; one that cannot be read is dropped with the reason.

    Raises:
        CurationError: A source is missing, broken, or holds no row that can be used.
    """
    kept: list[CuratedRow] = []
    dropped: list[tuple[CuratedRow, str]] = []
    for source in sources:
        before, seen = len(kept), len(dropped)
        for row, reason in _rows(source, library):
            if reason:
                dropped.append((row, reason))
            else:
                kept.append(row)
        if len(kept) == before:
            why = (
                f"all {len(dropped) - seen} rows are broken, the first: {dropped[seen][1]}"
                if len(dropped) > seen
                else "it is empty"
            )
            raise CurationError(f"source {source.name!r}, {source.path}, has no row that can be used; {why}")
    return StepOutcome(kept=kept, dropped=dropped)


def _rows(source: SourceSettings, library: ImageLibrary) -> Iterator[tuple[CuratedRow, str]]:
    options = RowOptions()
    files = files_of(source)
    for index, file in enumerate(files):
        # Files of two folders may have one name.
        alone = sum(Path(other).stem == Path(file).stem for other in files) == 1
        name = f"{source.name}:{Path(file).stem if alone else f'{index}-{Path(file).stem}'}"
        try:
            for number, raw in read_groups(file, None, options.columns):
                blank = _blank(source, f"{name}:{number}", raw)
                try:
                    content = read_row(raw, file=file, row=number, options=options)
                    yield _filled(blank, content, source, library), ""
                except RowError as error:
                    yield blank, f"{error.kind}: {error.detail}"
                except UnreadableImage as error:
                    yield blank, f"image is broken: {error}"
        except RecipeError as error:
            raise CurationError(f"source {source.name!r}: {error}") from error


def _blank(source: SourceSettings, key: str, raw: dict[str, Any]) -> CuratedRow:
    return CuratedRow(
        key=key,
        data_source=source.data_source or str(raw.get("data_source") or ""),
        prompt=(),
        images=(),
        image_sizes=(),
        gold=(),
        extra={},
        source=source.name,
        licence=source.licence,
        group=source.group,
    )


def _filled(blank: CuratedRow, content: RowContent, source: SourceSettings, library: ImageLibrary) -> CuratedRow:
    sizes = tuple(ImageFile(data).size for data in content.images)
    return replace(
        blank,
        data_source=source.data_source or content.data_source,
        prompt=content.messages,
        images=tuple(library.put(data) for data in content.images),
        image_sizes=sizes,
        gold=content.gold,
        extra={**content.extra, "index": content.item_id, "question": content.question},
    )
