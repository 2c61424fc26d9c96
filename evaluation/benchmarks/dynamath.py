"""DynaMath. Chengke Zou et al.: "DynaMath: A Dynamic Visual Benchmark for Evaluating Mathematical Reasoning Robustness of
Vision Language Models", ICLR 2025.

https://arxiv.org/abs/2411.00836 · 501 questions in ten variants each: 5,010 items, read from VLMEvalKit's DynaMath.tsv.

The model is asked for JSON with a "short answer"; what cannot be read goes to the judge. Floats may differ by 0.001; a
text is right if it is *contained in* the gold answer, so "y" is right for "yes"; an empty one is wrong here, though a JSON's
empty short answer is contained in every gold answer for the reference. `Average` is the headline (the paper's
57.2 fits it), `Worst Case` wants all variants of a question right. Source: VLMEvalKit e8e78f05, vlmeval/dataset/dynamath.py.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, Scored, items_of, mean_by
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, as_letter, need, pick, read_tsv
from judge.llm import Asked
from judge.marks import number, one_line, option

_GUIDE = (
    "\n## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere to the "
    "following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain detailed "
    "steps needed to solve the question, and the 'short answer' key should provide a concise response. {form}\n\n"
    "Example of expected JSON response format:\n\n"
)
_EXAMPLE = json.dumps({"solution": "[Detailed step-by-step explanation]", "short answer": "[Concise Answer]"}, indent=4)
_FORMS = {
    "multiple choice": "Provide the corresponing choice option in the 'short answer' key, such as 'A', 'B', 'C', or 'D'.",
    "float": "Format the answer as a three-digit floating-point number and provide it in the 'short answer' key.",
}
_OTHER_FORM = "Float numbers in the answer should be formatted as three-digit floating-point numbers."
_JUDGE_FORMS = {"multiple choice": "the option's letter", "float": "a number with three decimals"}
_LETTERS = "ABCDE"
_TOLERANCE = 0.001


def innermost(text: str) -> str:
    """The text from the first brace to the last, without backslashes."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        text = text[start : end + 1]
    return text.replace("\\", "")


def read_short(answer: object, answer_type: str) -> str | float | None:
    """A short answer by its type; None if it cannot be read. Numbers may hold a π."""
    if not isinstance(answer, str):
        return None
    if answer_type == "float":
        first = answer.split(" ")[0]
        try:
            return float(first.split("π")[0]) * math.pi if "π" in first else float(first)
        except ValueError:
            return None
    if answer_type == "multiple choice":
        if len(answer) == 1:
            return answer.upper()
        found = [letter for letter in _LETTERS if letter in answer.upper()]
        return found[0] if len(found) == 1 else None
    return answer


class DynaMath(Benchmark):
    """JSON with a short answer."""

    name = "dynamath"
    title = "DynaMath"
    num_items = 5010
    files = {"DynaMath.tsv": "b8425ad9a7114571fc9366e013699494"}
    suite = "math"
    headline = "Average"

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        columns = ("image", "question", "answer", "answer_type", "subject", "knowledge_level", "qid", "varid")
        yield from items_of(read_tsv(path, required=columns), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "answer_type", "qid", "varid")
        answer, is_choice = row.values["answer"], row.values["answer_type"] == "multiple choice"
        form = _FORMS.get(row.values["answer_type"], _OTHER_FORM)
        return Item(
            item_id=row.values["index"],
            question=f"## Question\n {row.values['question']}{_GUIDE.format(form=form)}{_EXAMPLE}",
            gold=as_letter(answer) if is_choice else answer,
            category=row.values.get("subject", ""),
            fields=pick(row, "answer_type", "knowledge_level", "qid", "varid"),
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """The JSON's short answer, else the answer as it stands, else what the judge makes of it."""
        answer_type, said = item.fields["answer_type"], innermost(prediction.text)
        try:
            value = read_short(json.loads(said, strict=False).get("short answer"), answer_type)
        except (ValueError, AttributeError):
            value = None
        if value is None:
            value = read_short(said, answer_type)
        if value is not None:
            return Grade(correct=_right(value, item), decided_by="rule:short_answer", extracted=str(value)[:200])
        if not grader.has_llm:
            return grader.no_llm()
        form = _JUDGE_FORMS.get(answer_type, "a few words")
        asked: Asked[str | float] = await grader.ask(
            "short_answer",
            (lambda reply: read_short(reply, answer_type)) if grader.parity else (lambda reply: _said(reply, answer_type)),
            reader=f"dynamath:{'as it is:' if grader.parity else ''}{answer_type}",
            form=form,
            answer=said,
        )
        if asked.value is not None:
            return grader.by_judge(_right(asked.value, item), str(asked.value), asked)
        if grader.parity and answer_type == "multiple choice" and item.gold in said[:3].upper():
            return grader.by_judge(True, "", asked)
        return grader.undecided(asked)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Average and worst case, each over all and by subject and level."""
        worst: dict[str, list[Scored]] = defaultdict(list)
        for row in rows:
            worst[row.item.fields["qid"]].append(row)
        firsts = [min(members, key=lambda row: row.score) for members in worst.values()]
        return _named("Average", rows) | _named("Worst Case", firsts)


def _said(reply: str, answer_type: str) -> str | float | None:
    """The judge's reply without marks around it; None if it is not of the form that was asked for."""
    if answer_type == "float":
        return number(reply)
    if answer_type == "multiple choice":
        return option(reply, dict.fromkeys(_LETTERS, ""))
    return one_line(reply)


def _right(value: str | float, item: Item) -> bool:
    if isinstance(value, float):
        try:
            return abs(value - float(item.gold)) <= _TOLERANCE
        except ValueError:
            return False
    if item.fields["answer_type"] == "multiple choice":
        return value == item.gold
    return value != "" and value.lower() in item.gold.lower()


def _named(setting: str, rows: Sequence[Scored]) -> dict[str, float]:
    def groups(row: Scored) -> list[str]:
        return [f"Subject-{row.item.category}", f"Level-{row.item.fields.get('knowledge_level', '')}"]

    table = mean_by(rows, groups)
    return {
        setting if name == "Overall" else f"{setting}: {name}": value for name, value in table.items() if name != "Macro"
    }


BENCHMARKS = (DynaMath(),)
