"""MME-RealWorld and its Lite subset. Yi-Fan Zhang et al.: "MME-RealWorld: Could Your Multimodal LLM Challenge
High-Resolution Real-World Scenarios that are Difficult for Humans?", ICLR 2025.

https://arxiv.org/abs/2408.13257 · data https://huggingface.co/datasets/yifanzhang114/MME-RealWorld-Base64 · 23,609 items,
Lite 1,919. Five options, the last one refuses; category "Task/Subtask" and a finer `l2-category`.

Lite is a TSV whose `multi-choice options` is a list literal of "(A) …"; the whole set comes as JSON shards, and as a TSV
with options in columns. All three are read. An answer's first capital letter counts. Source: VLMEvalKit e8e78f05,
image_mcq.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.images import ImageFile
from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.errors import BenchmarkError
from evaluation.scoring.choices import LETTERS, grade_first_letter
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.rows import Entry, image_reader, item_name, read_rows
from evaluation.tables.tsv import Row, as_letter, literal_list, need, read_tsv

_INSTRUCTION = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option. \nThe best answer is:"
)
_COLUMNS = ("index", "question", "answer", "category", "l2-category")
_LISTED = "The choices are listed below:\n"


class MMERealWorldLite(Benchmark):
    """First letter; a tree of tasks."""

    name = "mme_realworld_lite"
    title = "MME-RealWorld-Lite"
    num_items = 1919
    files = {"MME-RealWorld-Lite.tsv": "4c17057d7d3b6c4a0d4397c3dae0881c"}
    suite = "perception"

    def load(self, path: Path) -> Iterator[Item]:
        """Read a TSV, one JSON shard, or a folder of shards.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        if path.is_dir() or path.suffix == ".json":
            yield from _from_json(path)
            return
        columns = ("image", "question", "multi-choice options", "answer", "category", "l2-category")
        yield from items_of(read_tsv(path, required=columns), _of_row)

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """First capital letter."""
        return grade_first_letter(prediction.text, item.gold, grader.profile)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall, each task, each sub-task, each category."""
        return mean_by(rows, _tree)


class MMERealWorld(MMERealWorldLite):
    """The whole set."""

    name = "mme_realworld"
    title = "MME-RealWorld"
    num_items = 23609
    files = {"MME-RealWorld.tsv": "fd341132362fc41e707cb37ee6e4dcda"}


def _tree(row: Scored) -> list[str]:
    task, _, _ = row.item.category.partition("/")
    fine = row.item.fields["l2-category"].lower()
    if "attribute" in fine:
        fine = fine.split("/")[0] + "/attribute"
    return [task, row.item.category, f"{row.item.category}/{fine}"]


def _of_row(row: Row) -> Item:
    need(row, "question", "multi-choice options", "answer", "category", "l2-category")
    options = row.values["multi-choice options"]
    if options.startswith("["):
        options = _LISTED + "\n".join(literal_list(options))
    return _item(row.values, options, row.images, row.place)


def _item(values: Mapping[str, str], options: str, read_images: Callable[[], tuple[ImageFile, ...]], place: str) -> Item:
    gold = as_letter(values["answer"])
    if gold not in LETTERS:
        raise BenchmarkError(f"{place}: answer {values['answer']!r} is no letter from A to E")
    if "/" not in values["category"]:
        raise BenchmarkError(f"{place}: category {values['category']!r} is not Task/Subtask")
    return Item(
        item_id=values["index"],
        question=f"{values['question']} {options}\n{_INSTRUCTION}",
        gold=gold,
        category=values["category"],
        fields={"l2-category": values["l2-category"], "question": values["question"]},
        read_images=read_images,
    )


def _from_json(path: Path) -> Iterator[Item]:
    shards = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not shards:
        raise BenchmarkError(f"{path} holds no .json shards")
    required = (*_COLUMNS, "multi-choice options", "image")
    entries = (entry for shard in shards for entry in read_rows(shard, required=required))
    yield from items_of(entries, _of_entry)


def _of_entry(entry: Entry) -> Item:
    values = {name: str(entry.values[name]) for name in _COLUMNS}
    values["index"] = item_name(values["index"])
    options = _LISTED + "\n".join(entry.values["multi-choice options"])
    return _item(values, options, image_reader(entry.values["image"], entry.folder, entry.place), entry.place)


BENCHMARKS = (MMERealWorldLite(), MMERealWorld())
