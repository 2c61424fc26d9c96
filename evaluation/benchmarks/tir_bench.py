"""TIR-Bench. Ming Li et al.: "TIR-Bench: A Comprehensive Benchmark for Agentic Thinking-with-Images Reasoning", 2025.

https://arxiv.org/abs/2511.01833 · data https://huggingface.co/datasets/Agents-X/TIR-Bench · 1,215 items in 13 tasks; JSON
or parquet with `prompt`, `answer`, `task`, `image_1`, perhaps `image_2` (files beside it), `meta_data`.

Letters, numbers, contained text (ocr), overlap of sets (spot_difference) and of positions (jigsaw), each by the kind of
its gold answer. Rules of form: evalscope 1.14.1, benchmarks/tir_bench, which follows the authors' tools.py; what no rule
accepts goes to the judge, if there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, items_of
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.tables.rows import Entry, image_reader, item_name, read_rows
from judge.rules import Rules

_LETTER_PATTERNS = (
    re.compile(r"\\boxed\{([A-J])\}"),
    re.compile(r"[Aa](?:nswer|NSWER)\s*[:\-]\s*([A-J])\b"),
    re.compile(r"[Tt]he answer is\s*([A-J])\b"),
    re.compile(r"\b([A-J])\s*(?:is correct|is the answer)"),
)
_LAST_LETTER_PATTERNS = (re.compile(r"\(([A-J])\)"), re.compile(r"\b([A-J])\b"))
_PAIR = re.compile(r"\b(\d+)\s*,\s*(\d+)\b")
_RUN_OF_NUMBERS = re.compile(r"[\d\s,，]+")
_RULES = Rules()


def choice_letter(answer: str) -> str:
    """A letter A to J: boxed, announced, the last in brackets, or the last that stands alone; else the answer itself."""
    for pattern in _LETTER_PATTERNS:
        if found := pattern.search(answer):
            return found[1]
    for pattern in _LAST_LETTER_PATTERNS:
        if all_found := pattern.findall(answer):
            return str(all_found[-1])
    return answer.strip()


def set_overlap(a: set[int], b: set[int]) -> float:
    """Intersection over union; two empty sets are equal."""
    return len(a & b) / len(a | b) if a | b else 1.0


def grid(text: str, size: int) -> list[int]:
    """The first run of exactly size² numbers; empty if there is none."""
    for run in _RUN_OF_NUMBERS.findall(text):
        numbers = [int(number) for number in re.findall(r"\d+", run)]
        if len(numbers) == size * size:
            return numbers
    return []


class TIRBench(Benchmark):
    """Scored by the kind of answer."""

    name = "tir_bench"
    title = "TIR-Bench"
    num_items = 1215
    files = {"TIR-Bench.json": ""}
    suite = ""

    def load(self, path: Path) -> Iterator[Item]:
        """Read JSON or parquet.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        folder = path if path.is_dir() else path.parent

        def made(entry: Entry) -> Item:
            row = entry.values
            meta = row.get("meta_data") or {}
            if isinstance(meta, str):
                try:
                    meta = json.loads(meta)
                except ValueError as error:
                    raise BenchmarkError(f"{entry.place}: meta_data is no JSON: {error}") from error
            images = [row[name] for name in ("image_1", "image_2") if row.get(name)]
            return Item(
                item_id=item_name(row.get("id", entry.number)),
                question=str(row["prompt"]),
                gold=str(row["answer"]).strip(),
                category=str(row["task"]),
                fields={"difficulty": str(meta.get("difficulty", 2))},
                read_images=image_reader(images, folder, entry.place),
            )

        yield from items_of(read_rows(path, required=("prompt", "answer", "task")), made)

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """The task decides the rule, then the kind of answer; a zero by rule is shown to the judge if there is one."""
        score, extracted = _by_rule(item, prediction.text)
        if score > 0 or not grader.has_llm or not prediction.text.strip():
            return Grade(correct=score >= 1.0, partial=score, decided_by=f"rule:{item.category}", extracted=extracted[:200])
        return await grader.verdict(prediction.text, item.gold, question=item.question)


def _by_rule(item: Item, answer: str) -> tuple[float, str]:
    gold = item.gold
    if item.category == "ocr":
        return float(gold in answer), answer
    if item.category == "jigsaw":
        wanted, found = (grid(text, int(float(item.fields["difficulty"]))) for text in (gold, answer))
        if not wanted or not found:
            return 0.0, ""
        return sum(a == b for a, b in zip(wanted, found, strict=True)) / len(wanted), str(found)
    if _kind(gold) == "number":
        return float(_RULES.judge(answer, gold).correct is True), answer
    if item.category == "spot_difference":
        wanted_set, found_set = ({int(number) for number in re.findall(r"\d+", text)} for text in (gold, answer))
        return set_overlap(wanted_set, found_set), str(sorted(found_set))
    if item.category == "word_search":
        pair, said = _PAIR.search(gold), _PAIR.search(answer)
        same = pair is not None and said is not None and pair.groups() == said.groups()
        return float(same), said[0] if said is not None else ""
    letter = choice_letter(answer)
    return float(sorted(letter) == sorted(gold)), letter


def _kind(gold: str) -> str:
    try:
        float(gold)
    except ValueError:
        return "letters" if gold.isalpha() else "other"
    return "number"


BENCHMARKS = (TIRBench(),)
