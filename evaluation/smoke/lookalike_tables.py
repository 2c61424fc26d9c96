"""The look-alikes that come as parquet or JSON, and the picture that all of them show."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": (200, 40, 40), "blue": (40, 60, 200), "green": (40, 150, 60), "black": (20, 20, 20)}
Rows = list[dict[str, Any]]
"""As `ForeignRow` of evaluation/tables/rows.py, which reads them."""


def picture(colour: str, *, size: int = 64, text: str = "") -> bytes:
    """A PNG of one colour with a word in it."""
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((size // 8, size // 8, size - size // 8, size - size // 8), fill=COLOURS[colour])
    draw.text((2, 2), text, fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(path: Path, rows: Rows) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def mmsearch_r1(name: str, source: str) -> Callable[[Path, random.Random, int], Path]:
    """Writes parquet in MMSearch-R1's form."""

    def write(folder: Path, draw: random.Random, count: int) -> Path:
        rows: Rows = []
        for index in range(count):
            colour = draw.choice(list(COLOURS))
            reward = {
                "candidate_answers": json.dumps([colour.title(), f"{colour} é"]),
                "ground_truth": colour,
                "style": "rule",
            }
            rows.append(
                {
                    "data_id": f"{source}_{index}", "prompt": [{"role": "user", "content": f"<image>Which colour is it? ({index})"}],
                    "images": [{"bytes": picture(colour), "path": None}], "reward_model": reward,
                    "data_source": f"mmsearch_r1/{source}", "image_urls": ["none"],
                }
            )  # fmt: skip
        return _parquet(folder / name, rows)

    return write


def mmsearch(folder: Path, draw: random.Random, count: int) -> Path:
    """MMSearch's end-to-end parquet; the last row has no image."""
    rows: Rows = []
    for index in range(count):
        colour = draw.choice(list(COLOURS))
        image = None if index == count - 1 else {"bytes": picture(colour), "path": None}
        rows.append(
            {
                "sample_id": f"s{index}", "query": f"Which colour is it? ({index})", "query_image": image, "area": "news",
                "gt_answer": colour, "alternative_gt_answers": [colour.upper()],
            }
        )  # fmt: skip
    return _parquet(folder / "end2end.parquet", rows)


def realx(folder: Path, draw: random.Random, count: int) -> Path:
    """RealX-Bench's JSON with image files beside it."""
    rows: Rows = []
    for index in range(count):
        colour = draw.choice(list(COLOURS))
        (folder / f"realx_{index}.png").write_bytes(picture(colour))
        flags = {"perception": int(index % 2 == 0), "search": int(index % 3 == 0), "reason": int(index % 4 == 0)}
        row = {"query": f"Which colour? ({index})", "answer": f"{colour} or {colour} paint", "image": f"realx_{index}.png"}
        rows.append(row | flags)
    path = folder / "RealXBench.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def tir(folder: Path, draw: random.Random, count: int) -> Path:
    """TIR-Bench's JSON, every kind of answer."""
    kinds: Rows = [
        {"task": "color", "answer": "B"}, {"task": "math", "answer": "12"}, {"task": "ocr", "answer": "EXIT"},
        {"task": "word_search", "answer": "[3, 4]"}, {"task": "spot_difference", "answer": "[1, 5, 9]"},
        {"task": "jigsaw", "answer": "[4, 1, 3, 2]", "meta_data": {"difficulty": 2}}, {"task": "contrast", "answer": "2.5"},
    ]  # fmt: skip
    rows: Rows = []
    for index in range(max(count, len(kinds))):
        (folder / f"tir_{index}.png").write_bytes(picture(draw.choice(list(COLOURS))))
        row = {
            "id": index,
            "prompt": f"Look closely. A. red B. blue ({index})",
            "image_1": f"tir_{index}.png",
            "image_2": None,
        }
        rows.append(row | kinds[index % len(kinds)])
    path = folder / "TIR-Bench.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
