"""Small tables of VLMEvalKit's form, for tests of how they are read."""

import base64
import csv

from tests.conftest import png

COLUMNS = ["index", "image", "question", "A", "B", "C", "D", "answer", "category"]
CHOICES = {"A": "red", "B": "blue", "C": "green", "D": "black"}


def b64(*size: int) -> str:
    return base64.b64encode(png(*size)).decode()


def row(index, image, answer="A", **edits):
    values = {"index": index, "image": image, "question": f"q{index}?", "answer": answer, "category": "direct_attributes"}
    return {**values, **CHOICES, **edits}


def write(path, rows, *, columns=COLUMNS, newline="\n"):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator=newline, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path
