"""What becomes of one row: its images go into the store, and it is a row of the set, or dropped with the reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from agent.image_library import ImageLibrary
from agent.messages import IMAGE_PLACEHOLDER
from data import store_rows
from data.look.rows import LookedRow
from data.look.validate import checked


@dataclass(frozen=True, kw_only=True, slots=True)
class RowNames:
    """What is said about rows that do not say it themselves."""

    source: str
    """Empty: the name of the file."""
    licence: str
    group: str


def taken(row: LookedRow, *, library: ImageLibrary, names: RowNames, file: str, quickly: bool) -> dict[str, Any]:
    """A line of a part: `{"row": …}` or `{"dropped": …}`.

    Args:
        row: As its reader sees it.
        library: Takes its images, as they are.
        names: For what the row leaves open.
        file: The name of its file, without its folder.
        quickly: Believe images whose end says that they are whole.

    Raises:
        OSError: The store has no room.
    """
    _, _, problems = checked(row, quickly=quickly)
    if problems:
        first = asdict(problems[0])
        return {"dropped": first | {"detail": "; ".join(f"{one.kind}: {one.detail}" for one in problems)}}
    images = [library.put(image.data, durable=False) for image in row.images]
    sizes = [list(image.size) for image in row.images]
    said = {
        "source": row.source or names.source or file.rpartition(".")[0],
        "licence": row.licence or names.licence,
        "group": row.group or names.group,
    }
    shape = _rl_row if row.kind == "rl" else _conversation
    return {"row": shape(row, images, sizes, said, file), "question_images": row.question_images}


def _rl_row(row: LookedRow, images: list[str], sizes: list[list[int]], said: dict[str, str], _: str) -> dict[str, Any]:
    extra = dict(row.extra)
    asked = row.messages[-1]["content"].replace(IMAGE_PLACEHOLDER, "").strip()
    more = {"index": extra.pop("item_id"), "question": str(extra.get("question") or "") or asked}
    return store_rows.record(
        data_source=row.data_source,
        messages=row.messages,
        images=images,
        image_sizes=sizes,
        gold=row.gold,
        extra=extra | more,
        **said,
    )


def _conversation(
    row: LookedRow, images: list[str], sizes: list[list[int]], said: dict[str, str], file: str
) -> dict[str, Any]:
    return {
        "messages": [{"role": one["role"], "content": one["content"]} for one in row.messages],
        "images": [f"../../images/{name[:2]}/{name}" for name in images],
        "image_sizes": sizes,
        **said,
        "key": f"{said['source']}:{file.rpartition('.')[0]}:{row.row}",
    }
