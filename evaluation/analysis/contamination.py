"""Does training data hold items of a benchmark? Images by perceptual hash, questions by their words.

    deepeyes contamination --benchmark vstar --data VStarBench.tsv --train datasets/rl/*.parquet datasets/sft/json/*.json

The DeepEyesV2 paper names V* both as training data and as an evaluation. An image counts as the same if at most
`--max-distance` of 64 bits of its hash differ, which survives another size or compression but not a crop; a question if
most of its runs of five words occur in one training question. Both are signs to look at: boards, forms and templates look
alike.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.image_hashes import image_hash
from code_sandbox.command_line import CommandParser, add_json_option, print_json, program, sign_of_life
from evaluation.benchmarks import load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.tables.rows import image_reader, read_rows

_RUN_WORDS = 5
_BLOCK = 4096
_WORD = re.compile(r"\w+")
Bits = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One benchmark item that training data seems to hold."""

    item_id: str
    kind: str
    """`image` or `question`."""
    train: str
    """File and row."""
    closeness: str
    """Bits that differ, or the share of runs of words that occur."""


@dataclass(frozen=True, slots=True)
class ComparedText:
    """A row of training data, or a benchmark item."""

    name: str
    question: str
    images: tuple[bytes, ...]


def words(text: str) -> list[str]:
    """Its words, lower case."""
    return _WORD.findall(text.lower())


def runs_of_words(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of five words, lower case; of a shorter text the whole."""
    found = words(text)
    if len(found) <= _RUN_WORDS:
        return frozenset([tuple(found)]) if found else frozenset()
    return frozenset(tuple(found[i : i + _RUN_WORDS]) for i in range(len(found) - _RUN_WORDS + 1))


def check(
    items: Iterable[ComparedText], train: Iterable[ComparedText], *, max_distance: int = 4, min_share: float = 0.8
) -> list[Finding]:
    """Compare every item with every row.

    Args:
        items: Of the benchmark.
        train: Of the training data; read once, hashes alone are kept.
        max_distance: Bits of 64 that may differ.
        min_share: Of an item's runs of words that must occur in one row.

    Returns:
        At most one finding an item and kind, the closest.
    """
    kept = [(entry.name, entry.question, [image_hash(data) for data in entry.images]) for entry in items]
    names: list[str] = []
    hashes: list[int] = []
    by_run: dict[tuple[str, ...], list[int]] = defaultdict(list)
    rows: list[str] = []
    for number, entry in enumerate(train):
        rows.append(entry.name)
        for run in runs_of_words(entry.question):
            by_run[run].append(number)
        for data in entry.images:
            if (found := image_hash(data)) is not None:
                names.append(entry.name)
                hashes.append(found)
    return _same_images(kept, names, np.array(hashes, np.uint64), max_distance) + _same_words(kept, rows, by_run, min_share)


def _same_images(
    items: Sequence[tuple[str, str, list[int | None]]], names: Sequence[str], hashes: Bits, max_distance: int
) -> list[Finding]:
    findings = []
    for name, _, images in items:
        best: tuple[int, str] | None = None
        for value in images:
            if value is None or not len(hashes):
                continue
            for start in range(0, len(hashes), _BLOCK * 64):
                distances = np.bitwise_count(hashes[start : start + _BLOCK * 64] ^ np.uint64(value))
                place = int(distances.argmin())
                if best is None or distances[place] < best[0]:
                    best = int(distances[place]), names[start + place]
        if best is not None and best[0] <= max_distance:
            findings.append(Finding(name, "image", best[1], f"{best[0]} bits"))
    return findings


def _same_words(
    items: Sequence[tuple[str, str, list[int | None]]],
    rows: Sequence[str],
    by_run: dict[tuple[str, ...], list[int]],
    min_share: float,
) -> list[Finding]:
    findings = []
    for name, question, _ in items:
        runs = runs_of_words(question)
        counts: dict[int, int] = defaultdict(int)
        for run in runs:
            for number in by_run.get(run, ()):
                counts[number] += 1
        if counts:
            number = max(counts, key=lambda row: counts[row])
            share = counts[number] / len(runs)
            if share >= min_share:
                findings.append(Finding(name, "question", rows[number], f"{share:.0%}"))
    return findings


def benchmark_entries(name: str, path: Path) -> Iterator[ComparedText]:
    """A benchmark's questions, without options, and images."""
    for item in load_benchmark(name).load(path):
        if item.unread:
            continue
        question = item.fields.get("question", item.question)
        yield ComparedText(item.item_id, question, tuple(image.data for image in item.read_images()))


def train_entries(paths: Sequence[Path], *, media: Path | None = None) -> Iterator[ComparedText]:
    """Rows of RL parquet (`prompt`, `images`) and SFT JSON (`messages`, `images`).

    Raises:
        BenchmarkError: A file is missing or has neither form.
    """
    for path in paths:
        for entry in read_rows(path, required=()):
            row, place = entry.values, entry.place
            if entry.problem:
                raise BenchmarkError(f"{place}: {entry.problem}")
            messages = row.get("prompt") or row.get("messages")
            if not isinstance(messages, list):
                raise BenchmarkError(f"{place} has neither prompt nor messages; is it training data?")
            asked = [str(message["content"]) for message in messages if message.get("role") == "user"]
            question = str((row.get("extra_info") or {}).get("question") or (asked[0] if asked else ""))
            images = image_reader(row.get("images"), media or path.parent, place)()
            yield ComparedText(place, question.replace("<image>", " "), tuple(image.data for image in images))


def main(arguments: list[str] | None = None, *, prog: str = "python -m evaluation.analysis.contamination") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("--benchmark", required=True, help="its name, as for `deepeyes eval`")
    parser.add_argument("--data", type=Path, required=True, help="the benchmark's file")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="parquet or JSON files of training data")
    parser.add_argument("--media", type=Path, help="folder that image paths of the training data start from")
    parser.add_argument("--max-distance", type=int, default=4, help="bits of 64 in which the hashes of one image may differ")
    parser.add_argument(
        "--min-share", type=float, default=0.8, help="of a question's runs of five words that one training question has"
    )
    parser.add_argument("--out", type=Path, help="write all findings as JSON lines")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    with program(prog), sign_of_life("comparing training data with the benchmark"):
        items = list(benchmark_entries(options.benchmark, options.data))
        train = train_entries(options.train, media=options.media)
        found = check(items, train, max_distance=options.max_distance, min_share=options.min_share)
        if options.out is not None:
            options.out.write_text("".join(json.dumps(asdict(finding)) + "\n" for finding in found), encoding="utf-8")
    if options.json:
        print_json({"items": len(items), "findings": [asdict(finding) for finding in found]})
        return
    for kind in ("image", "question"):
        of_kind = [finding for finding in found if finding.kind == kind]
        sys.stdout.write(f"{len(of_kind)} of {len(items)} items by {kind}\n")
        for finding in of_kind[:10]:
            sys.stdout.write(f"  {finding.item_id}: {finding.train} ({finding.closeness})\n")


if __name__ == "__main__":
    main()
