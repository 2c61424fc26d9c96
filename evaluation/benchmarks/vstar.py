"""V* Bench. Penghao Wu, Saining Xie: "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs", CVPR 2024.

https://arxiv.org/abs/2312.14135 · data https://huggingface.co/datasets/craigwu/vstar_bench (MIT) · 191 items, read from
VLMEvalKit's VStarBench.tsv (md5 b18854d7075574be06b631cd5f7d2d6a). Categories: direct_attributes 115, relative_position 76.

The published 81.8 of DeepEyesV2-7B is no k/191, so it is a mean over the categories or over runs: the report gives micro and
macro accuracy both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from agent.episode import Episode
from agent.images import ImageFile
from evaluation.benchmarks import BenchmarkError, Grade, Item
from evaluation.scoring import infer_choice
from evaluation.tsv import read_tsv

PROMPT = "deepeyesv2_code"
PROFILE = "vlmevalkit"
MD5 = "b18854d7075574be06b631cd5f7d2d6a"
NUM_ITEMS = 191
_LETTERS = "ABCDE"


def load(path: Path) -> Iterator[Item]:
    """Read VLMEvalKit's TSV.

    Raises:
        BenchmarkError: A column is missing, or a row is broken.
    """
    for row in read_tsv(path, required=("image", "question", "answer", "A", "B", "category")):
        values = row.values
        choices = {letter: values[letter] for letter in _LETTERS if values.get(letter, "") not in ("", "nan", "NaN")}
        if values["answer"] not in choices:
            raise BenchmarkError(
                f"{path}, row {row.number}: answer {values['answer']!r} is none of the options {', '.join(choices)}"
            )
        if not row.images:
            raise BenchmarkError(f"{path}, row {row.number}: there is no image")
        yield Item(
            item_id=values["index"],
            question=_question(values["question"], choices),
            gold=values["answer"],
            category=values["category"],
            choices=choices,
            read_images=_given(row.images),
        )


def _given(images: tuple[ImageFile, ...]) -> Callable[[], tuple[ImageFile, ...]]:
    return lambda: images


def _question(question: str, choices: dict[str, str]) -> str:
    options = "\n".join(f"{letter}. {text}" for letter, text in choices.items())
    return f"{question}\nOptions:\n{options}\nPlease select the correct answer from the options above."  # noqa: S608 - a question, not SQL


def grade(item: Item, episode: Episode) -> Grade:
    """VLMEvalKit's rule without a judge: an answer that names no option counts as wrong."""
    answer = episode.answer if episode.answer is not None else (episode.replies[-1] if episode.replies else "")
    choice = infer_choice(answer, item.choices)
    if choice is None:
        return Grade(correct=False, decided_by="rule:unparsed", extracted="")
    return Grade(correct=choice == item.gold, decided_by="rule:choice", extracted=choice)
