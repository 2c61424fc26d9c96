"""LogicVista. Yijia Xiao et al.: "LogicVista: Multimodal LLM Logical Reasoning Benchmark in Visual Contexts", 2024.

https://arxiv.org/abs/2407.04973 · 448 items (447 in VLMEvalKit's LogicVista.tsv), five skills; an item may have several
right letters.

There are no rules: the judge names the letters, capitals and nothing else (except in parity marks around them and commas
between them are read), and their set must be the gold one. A skill that no item has is left out (the reference gives nan).
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/logicvista.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, as_letter, need, read_tsv
from judge.marks import letters

_SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")


class LogicVista(Benchmark):
    """Letters named by the judge."""

    name = "logicvista"
    title = "LogicVista"
    num_items = 447
    files = {"LogicVista.tsv": "41c5d33adf33765c399e0e6ae588c061"}
    suite = "math"
    needs_judge = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(read_tsv(path, required=("image", "question", "answer", "skill")), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "skill")
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=", ".join(as_letter(key) for key in row.values["answer"].split(",")),
            category=row.values["skill"],
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Sorted letters are compared without regard to case."""
        if not grader.has_llm:
            return grader.no_llm()
        read = _letters if grader.parity else letters
        asked = await grader.ask(
            "letters",
            read,
            reader="letters" if grader.parity else "marked letters",
            question=item.question,
            answer=prediction.text,
        )
        if asked.value is None:
            return grader.undecided(asked)
        gold = sorted(part.lower() for part in item.gold.split(", "))
        return grader.by_judge("".join(sorted(asked.value.lower())) == "".join(gold), asked.value, asked)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall and each skill; an item may have several."""
        return mean_by(rows, lambda row: [skill for skill in _SKILLS if skill in row.item.category])


def _letters(reply: str) -> str | None:
    return reply if reply.isupper() and reply.isalpha() else None


BENCHMARKS = (LogicVista(),)
