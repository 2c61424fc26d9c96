"""Rows while they are curated: those of the store, with a key, a part, and the facts that steps have counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.files import NotWritten, write_whole
from agent.image_library import ImageLibrary
from agent.images import ImageFile
from curation.errors import CurationError
from data import store_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratedRow:
    """One question."""

    key: str
    """`<source>:<file>:<row>`: the index in the data need not be unique across files."""
    data_source: str
    prompt: tuple[Mapping[str, str], ...]
    images: tuple[str, ...]
    """By sha256, in the store."""
    image_sizes: tuple[tuple[int, int], ...]
    gold: tuple[str, ...]
    extra: Mapping[str, Any]
    source: str
    licence: str
    group: str
    part: str = "rl"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The question as judges read it."""
        return str(self.extra.get("question") or "")

    def read_images(self, library: ImageLibrary) -> tuple[ImageFile, ...]:
        """Its image files."""
        return tuple(ImageFile.shared(library.get(name)) for name in self.images)

    def content(self) -> dict[str, Any]:
        """What a model is asked and graded by."""
        return {"prompt": [dict(one) for one in self.prompt], "images": self.images, "gold": self.gold, "q": self.question}

    def store_record(self) -> dict[str, Any]:
        """The row as the store's sets have it."""
        return store_rows.record(
            data_source=self.data_source,
            messages=self.prompt,
            images=self.images,
            image_sizes=self.image_sizes,
            gold=self.gold,
            extra=self.extra,
            source=self.source,
            licence=self.licence,
            group=self.group,
        )

    def record(self, reason: str = "") -> dict[str, Any]:
        """The row as a step's folder has it."""
        facts = json.dumps(dict(self.facts), ensure_ascii=False, sort_keys=True)
        return self.store_record() | {"key": self.key, "part": self.part, "facts_json": facts, "reason": reason}


def row_of(record: Mapping[str, Any]) -> CuratedRow:
    """Reads what `record` wrote."""
    return CuratedRow(
        key=record["key"],
        data_source=record["data_source"],
        prompt=tuple(record["prompt"]),
        images=tuple(record["images"]),
        image_sizes=tuple((wide, high) for wide, high in record["image_sizes"]),
        gold=tuple(record["reward_model"]["ground_truth"]),
        extra=json.loads(record["extra_info_json"]),
        source=record["source"],
        licence=record["licence"],
        group=record["group"],
        part=record["part"],
        facts=json.loads(record["facts_json"]),
    )


def digest(value: Any) -> str:
    """Sha256 of a plain value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def digest_rows(rows: Iterable[CuratedRow]) -> str:
    """Sha256 of rows in their order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row.record(), sort_keys=True, ensure_ascii=False).encode("utf-8", "replace"))
    return found.hexdigest()


def schema(*, of_step: bool) -> Any:
    """That of the store's RL rows; a step's folder adds four columns."""
    import pyarrow

    more = [(name, pyarrow.string()) for name in ("key", "part", "facts_json", "reason")] if of_step else []
    return pyarrow.schema([*store_rows.schema(), *(pyarrow.field(*each) for each in more)])


def write_rows(path: Path, records: Sequence[Mapping[str, Any]], *, of_step: bool) -> None:
    """Write a parquet file: complete or absent.

    Raises:
        CurationError: There is no room for it.
    """
    try:
        store_rows.write_rows(path, records, schema(of_step=of_step))
    except OSError as error:
        raise no_room(path, error) from error


def read_rows(path: Path) -> list[tuple[CuratedRow, str]]:
    """Rows of a step's folder, each with its reason.

    Raises:
        CurationError: The file is missing or broken.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=store_rows.ROW_GROUP)
            return [(row_of(record), record["reason"]) for batch in batches for record in batch.to_pylist()]
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise CurationError(f"{path} cannot be read ({error}); delete the folder {path.parent} and run again") from error


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step.

    Raises:
        CurationError: There is no room for it.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise no_room(path, error) from error


def no_room(path: Path, error: OSError) -> CurationError:
    """What to say when a file cannot be written."""
    told = str(error) if isinstance(error, NotWritten) else f"{path} cannot be written ({error})"
    return CurationError(f"{told}; make room and run again: steps that are done are kept")
