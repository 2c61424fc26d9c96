"""MathVerse (testmini). Renrui Zhang et al.: "MathVerse: Does Your Multi-modal LLM Truly See the Diagrams in Visual Math
Problems?", ECCV 2024.

https://arxiv.org/abs/2403.14624 · 3,940 items in five versions of 788 problems, read from VLMEvalKit's MathVerse_MINI.tsv.

The judge extracts the answer, always; equal text is right, else the judge says 1 or 0, and anything else is unreadable
(except in parity marks around the digit are read).
VLMEvalKit gives no overall number; the fork's is the mean of the five versions, which is also the headline here; `Micro`
is the share of all items.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathverse.py; DeepEyesV2 0373e6e, the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.errors import BenchmarkError
from evaluation.scoring.extraction import extract
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, need, read_tsv


class MathVerse(Benchmark):
    """Extraction, then a verdict."""

    name = "mathverse"
    title = "MathVerse"
    num_items = 3940
    files = {"MathVerse_MINI.tsv": "5017caca32b7fa110c350a1bea861b65"}
    suite = "math"
    needs_judge = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(
            read_tsv(path, required=("image", "question", "answer", "problem_version", "question_for_eval", "metadata")),
            self._item,
        )

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "problem_version", "metadata")
        try:
            metadata = json.loads(row.values["metadata"].replace("'", '"'))
            subject, subfield = str(metadata["subject"]), str(metadata["subfield"])
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{row.place}: metadata has no subject and subfield: {error!r}") from error
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=row.values["answer"],
            category=row.values["problem_version"],
            fields={
                "question_for_eval": row.values.get("question_for_eval", ""),
                "subject": subject,
                "subfield": subfield,
            },
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """Two questions to the judge at most."""
        if not grader.has_llm:
            return grader.no_llm()
        extracted = await extract(item.question, prediction.text, grader)
        if extracted.value is None:
            return grader.undecided(extracted)
        if extracted.value.strip() == item.gold.strip():
            return grader.by_judge(True, extracted.value, extracted)
        question = item.fields["question_for_eval"]
        asked = await grader.ask(
            "same_answer",
            str,
            reader="01",
            choices=("0", "1"),
            question=question,
            gold=item.gold,
            answer=extracted.value,
        )
        if asked.value is None:
            return grader.undecided(asked)
        return grader.by_judge(asked.value == "1", extracted.value, asked)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """The mean of the versions, each version, and each subject."""
        versions = mean_by(rows, lambda row: [row.item.category])
        if not versions:
            return {}
        micro = versions.pop("Overall")
        macro = versions.pop("Macro", micro)
        subjects = mean_by(rows, lambda row: [row.item.fields["subject"], row.item.fields["subfield"]])
        subjects = {name: value for name, value in subjects.items() if name not in ("Overall", "Macro")}
        return {"Overall": macro, "Micro": micro} | versions | subjects


BENCHMARKS = (MathVerse(),)
