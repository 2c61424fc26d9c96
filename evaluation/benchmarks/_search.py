"""What the knowledge-seeking benchmarks share: rows of MMSearch-R1's form, and answers that a judge compares.

Source of form and rules: MMSearch-R1, mmsearch_r1/data and mmsearch_r1/utils/reward_score_mm/mmsearch_r1_score.py.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.errors import BenchmarkError
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.rows import Entry, image_reader, item_name, json_texts, read_rows, texts

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Lower case, without punctuation, articles and surplus blanks; an article that is all there is stays."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join((_ARTICLES.sub(" ", text).strip() or text).split())


class SearchBenchmark(Benchmark):
    """Open answers; any of several gold answers will do."""

    suite = "search"
    prompt = "deepeyesv2"
    tools = ("python", "search", "image_search")
    needs_judge = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read parquet or JSON with `prompt`, `images` and `reward_model`, whose `candidate_answers` may be JSON.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """

        def made(entry: Entry) -> Item:
            row = entry.values
            try:
                question = _last_question(row["prompt"])
                reward = row["reward_model"]
                golds = json_texts(reward.get("candidate_answers")) + texts(reward.get("ground_truth"))
                extra = row.get("extra_info") or json.loads(row.get("extra_info_json") or "{}")  # as a store's sets have it
                index = row.get("data_id") or extra.get("index") or f"{self.name}_{entry.number}"
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                raise BenchmarkError(f"{entry.place} is no row of MMSearch-R1's form: {error!r}") from error
            return self.item(
                item_id=item_name(index),
                question=question,
                golds=golds,
                category=str(row.get("data_source") or ""),
                image=row.get("images"),
                folder=path.parent,
                place=entry.place,
            )

        yield from items_of(read_rows(path, required=("prompt", "reward_model")), made)

    def item(
        self, *, item_id: str, question: str, golds: Sequence[str], category: str, image: Any, folder: Path, place: str
    ) -> Item:
        """An item with its gold answers, the first of which is shown.

        Raises:
            BenchmarkError: There is no gold answer or question.
        """
        unique = list(dict.fromkeys(golds))
        if not unique or not question.strip():
            raise BenchmarkError(f"{place}: {'no gold answer' if question.strip() else 'no question'}")
        return Item(
            item_id=item_id,
            question=question,
            gold=unique[0],
            category=category,
            fields={"golds": json.dumps(unique, ensure_ascii=False)},
            read_images=image_reader(image, folder, place),
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """The judge decides (rules first). `em` and `sub_em` are normalised equality and containment, for comparison."""
        golds = json.loads(item.fields["golds"])
        said = plain(prediction.text)
        wanted = [plain(gold) for gold in golds]
        extra: dict[str, float | str] = {
            "em": float(said in wanted),
            "sub_em": float(any(gold and gold in said for gold in wanted)),
        }
        found = await self.judged(item, prediction, grader, golds)
        return Grade(
            correct=found.correct,
            decided_by=found.decided_by,
            extracted=found.extracted,
            extra=extra | dict(found.extra),
            judge_tokens=found.judge_tokens,
        )

    async def judged(self, item: Item, prediction: Prediction, grader: Grader, golds: Sequence[str]) -> Grade:
        """Right or wrong."""
        return await grader.verdict(prediction.text, golds, question=item.question)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Accuracy overall and by source, exact match, contained match."""
        if not rows:
            return {}
        extra = {name: sum(float(row.grade.extra[name]) for row in rows) / len(rows) for name in ("em", "sub_em")}
        return mean_by(rows, lambda row: [row.item.category]) | {"EM": extra["em"], "Sub-EM": extra["sub_em"]}


def _last_question(messages: Any) -> str:
    content = [message for message in messages if message["role"] == "user"][-1]["content"]
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content)
    return str(content).replace("<image>", "").strip()
