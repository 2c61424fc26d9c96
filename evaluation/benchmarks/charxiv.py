"""CharXiv, descriptive and reasoning questions (validation). Zirui Wang et al.: "CharXiv: Charting Gaps in Realistic Chart
Understanding in Multimodal LLMs", NeurIPS 2024.

https://arxiv.org/abs/2406.18521 · 4,000 descriptive and 1,000 reasoning items, read from VLMEvalKit's two TSVs.

Every row brings the judge's prompt (`grading_query`), which asks for JSON. Two versions of the files are about: one asks for
`extract_answer`, the other for `extracted_answer`, and the reference's code of one version scores 0 for everything with
the files of the other. Here the profile says which version it belongs to, and the wrong file is an error.
The judge's scores are summed: 0.5 is half an item. One over 1 or under 0, which the reference would sum as well, counts as
1 or 0.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/charxiv.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, need, read_tsv
from judge.marks import json_object
from judge.quoting import disarmed

_KEYS = ("extract_answer", "extracted_answer")
_PLACE = "{PREDICTION}"
_BY_QUESTION = dict.fromkeys(range(1, 8), "Information Extraction") | {
    8: "Enumeration", 9: "Enumeration", 10: "Counting", 11: "Pattern Recognition", 12: "Counting", 13: "Enumeration",
    14: "Enumeration", 15: "Enumeration", 16: "Pattern Recognition", 17: "Compositionality", 18: "Pattern Recognition",
    19: "Counting",
}  # fmt: skip


class CharXivDescriptive(Benchmark):
    """Judged with the row's own prompt."""

    name = "charxiv_descriptive"
    title = "CharXiv (descriptive)"
    num_items = 4000
    files = {"CharXiv_descriptive_val.tsv": "e165037032f169a59dd09ea5d7ad3073"}
    suite = "perception"
    needs_judge = True
    column: ClassVar[str] = "qid"
    groups: ClassVar[dict[int, str]] = _BY_QUESTION

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(
            read_tsv(path, required=("image", "question", "answer", "grading_query", self.column)), self._item
        )

    def _item(self, row: Row) -> Item:
        need(row, "question", "grading_query", self.column)
        if _PLACE not in row.values["grading_query"]:
            raise BenchmarkError(f"{row.place}: grading_query has no {_PLACE}")
        try:
            category = self.groups[int(float(row.values[self.column]))]
        except (ValueError, KeyError) as error:
            raise BenchmarkError(f"{row.place}: {self.column} {row.values[self.column]!r} is unknown") from error
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=row.values.get("answer", ""),
            category=category,
            fields={"grading_query": row.values["grading_query"]},
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """The score in the judge's JSON; in parity a fence is unreadable and JSON with other keys is 0, as in the reference.

        Raises:
            BenchmarkError: The file is of the other version.
        """
        query, key = item.fields["grading_query"], grader.profile.charxiv_key
        other = next(name for name in _KEYS if name != key)
        if other in query and key not in query:
            raise BenchmarkError(
                f"this file asks the judge for {other!r}, but profile {grader.profile.name} reads {key!r}, and would score "
                "0 for everything; use the files of that version, or another --profile"
            )
        if not grader.has_llm:
            return grader.no_llm()
        if grader.parity:
            asked = await grader.ask_text(query.replace(_PLACE, prediction.text), _bare_json, reader="charxiv")
        else:
            asked = await grader.ask_text(
                query.replace(_PLACE, disarmed(prediction.text)),
                lambda reply: _scored_json(reply, key),
                reader=f"charxiv:{key}",
            )
        if asked.value is None:
            return grader.undecided(asked)
        if key not in asked.value or "score" not in asked.value:
            return grader.by_judge(False, "", asked)
        try:
            score = float(asked.value["score"])
        except (TypeError, ValueError):
            return grader.undecided(asked)
        return grader.by_judge(score >= 1.0, str(asked.value[key]), asked, partial=min(max(score, 0.0), 1.0))

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Overall and each group."""
        return mean_by(rows, lambda row: [row.item.category])


class CharXivReasoning(CharXivDescriptive):
    """The reasoning questions."""

    name = "charxiv_reasoning"
    title = "CharXiv (reasoning)"
    num_items = 1000
    files = {"CharXiv_reasoning_val.tsv": "98eeff269b40726982627b19338ccd45"}
    column = "inst_category"
    groups = {1: "Text-in-Chart", 2: "Text-in-General", 3: "Number-in-Chart", 4: "Number-in-General"}


def _scored_json(reply: str, key: str) -> dict[str, Any] | None:
    """One JSON object, perhaps in a fence, with an answer and a number as score; what else there is, is asked for again."""
    value = json_object(reply)
    if value is None or key not in value:
        return None
    try:
        score = float(value.get("score", ""))
    except (TypeError, ValueError):
        return None
    return value if 0 <= score <= 1 else None


def _bare_json(reply: str) -> dict[str, Any] | None:
    """Read JSON as the reference does: a fenced block is unreadable, other keys are a score of 0."""
    try:
        value = json.loads(reply)
    except ValueError:
        return None
    return value if isinstance(value, dict) else {}


BENCHMARKS = (CharXivDescriptive(), CharXivReasoning())
