"""What a prepared set holds, counted while it is written."""

from __future__ import annotations

import hashlib
import importlib.metadata
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.chat_formats import format_of
from agent.messages import IMAGE_PLACEHOLDER
from agent.recipes import shared_value
from data.look.numbers import quantiles

_FAMILY = "qwen2_5_vl"
_VERSIONS = ("deepeyes", "pyarrow", "pillow")


class SetCounts:
    """Counts the lines of a set's parts."""

    def __init__(self) -> None:
        self._rule = format_of(_FAMILY).image_rule(int(shared_value("image_max_pixels")))
        self.kept = 0
        self._by: dict[str, Counter[str]] = {name: Counter() for name in ("source", "licence", "group", "data_source")}
        self._with_images = 0
        self._chars = array("q")
        self._pixels = {"question": array("q"), "tool": array("q")}
        self._tokens = {"question": array("q"), "tool": array("q")}
        self._images: set[bytes] = set()
        self._questions: set[bytes] = set()
        self._duplicates = 0
        self.dropped: Counter[str] = Counter()
        self.first_dropped: dict[str, str] = {}

    def add_row(self, row: Mapping[str, Any], question_images: int) -> None:
        """Count a row of the set, RL or conversation."""
        self.kept += 1
        for name, counter in self._by.items():
            if name in row:
                counter[row[name] or "(not named)"] += 1
        messages = row.get("prompt") or row.get("messages") or ()
        self._with_images += bool(row["images"])
        self._chars.append(sum(len(message["content"]) for message in messages))
        names = [str(image).rpartition("/")[2] for image in row["images"]]
        for number, (name, (wide, high)) in enumerate(zip(names, row["image_sizes"], strict=True)):
            kind = "question" if number < question_images else "tool"
            self._pixels[kind].append(wide * high)
            self._tokens[kind].append(self._rule.num_tokens(wide, high))
            self._images.add(bytes.fromhex(name))
        asked = next((message["content"] for message in messages if message["role"] == "user"), "")
        text = f"{asked.replace(IMAGE_PLACEHOLDER, '').strip()}\0{' '.join(names[:question_images])}"
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        self._duplicates += digest in self._questions
        self._questions.add(digest)

    def add_dropped(self, dropped: Mapping[str, Any]) -> None:
        """Count a row that is not in the set."""
        self.dropped[dropped["kind"]] += 1
        self.first_dropped.setdefault(dropped["kind"], f"{dropped['file']}, row {dropped['row']}: {dropped['detail']}")

    def told(self) -> dict[str, Any]:
        """All counts, as plain values of JSON."""
        images = {
            f"{kind}_images": {
                "count": len(self._pixels[kind]),
                "pixels": quantiles(self._pixels[kind]),
                "tokens": {**quantiles(self._tokens[kind]), "sum": sum(self._tokens[kind])},
            }
            for kind in ("question", "tool")
        }
        return {
            "rows": self.kept,
            "rows_with_images": self._with_images,
            "different_images": len(self._images),
            **images,
            "image_rule": f"tokens as {_FAMILY} takes them, at most {int(shared_value('image_max_pixels')):,} pixels",
            "characters": quantiles(self._chars),
            "rows_that_repeat_a_question_and_its_images": self._duplicates,
            **{f"rows_by_{name}": dict(counter.most_common()) for name, counter in self._by.items() if counter},
            "dropped": {
                kind: {"number": number, "first": self.first_dropped[kind]} for kind, number in self.dropped.most_common()
            },
        }


def versions() -> dict[str, str]:
    """The versions of what decides how rows and images are read."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def sha256_of(path: Path) -> str:
    """A file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
