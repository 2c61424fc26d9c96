r"""MATH-Vision (test). Ke Wang et al.: "Measuring Multimodal Mathematical Reasoning with MATH-Vision Dataset", NeurIPS 2024.

https://arxiv.org/abs/2402.14804 · 3,040 items in 16 subjects, read from VLMEvalKit's MathVision.tsv.

Options are read by rule; other answers are compared as text, arithmetic and LaTeX (evaluation/scoring/arithmetic.py), and
if that fails the judge extracts an answer, which is compared the same way. Under the fork `\boxed{}` comes off the gold
answer of a question without options, and `\( \)` off the judge's extraction, never off what the model said; and there the
judge is asked for every value, even one that is right as it stands.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathv.py; DeepEyesV2 0373e6e, the same file.

Known to surprise: in the references the answer "A" equals any number, because they run the texts as code where a variable
`a` holds the gold value. That is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, Item, items_of
from evaluation.scoring.arithmetic import is_equal, unboxed, without_parentheses
from evaluation.scoring.choices import infer_choice
from evaluation.scoring.extraction import form_of, grade_extracted, letter_of, lettered
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.tables.tsv import Row, as_letter, literal_list, need, read_tsv

# The judge says "x = 3" where 3 was asked for.
_NAMED_VALUE = re.compile(r"\\?[A-Za-z]\w{0,2}\s*=\s*([^=]+)$")


class MathVision(Benchmark):
    """Equality of values, with extraction where needed."""

    name = "mathvision"
    title = "MATH-Vision"
    num_items = 3040
    files = {"MathVision.tsv": "93f6de14f7916e598aa1b7165589831e"}
    suite = "math"
    needs_judge = True

    def load(self, path: Path) -> Iterator[Item]:
        """Read the TSV.

        Raises:
            BenchmarkError: A column is missing, or no row can be read.
        """
        yield from items_of(read_tsv(path, required=("image", "question", "answer", "choices", "category")), self._item)

    def _item(self, row: Row) -> Item:
        need(row, "question", "answer", "category")
        answer, options = row.values["answer"], literal_list(row.values.get("choices", "[]"))
        return Item(
            item_id=row.values["index"],
            question=row.values["question"],
            gold=as_letter(answer) if options else answer,
            category=row.values["category"],
            choices=lettered(options),
            read_images=row.images,
        )

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """A rule decides if the answer itself names an option or is the value; else what the judge extracts is compared."""
        answer, gold = prediction.text, item.gold
        if item.choices:
            letter = infer_choice(answer, item.choices, grader.profile)
            if letter is not None:
                return Grade(correct=is_equal(letter, gold), decided_by="rule:choice", extracted=letter)
        else:
            gold = unboxed(gold) if grader.profile.unwraps_maths else gold
            always_asked = grader.profile.values_are_extracted and grader.has_llm
            if not always_asked and is_equal(answer, gold):
                return Grade(correct=True, decided_by="rule:equal", extracted=answer[:200])
        form = letter_of(item.choices) if item.choices else form_of(gold)
        return await grade_extracted(item.question, answer, grader, lambda found: _right(item, found, gold, grader), form)


def _right(item: Item, extracted: str, gold: str, grader: Grader) -> bool:
    if grader.profile.unwraps_maths:
        extracted = without_parentheses(extracted)
    if item.choices:
        # The reference compares "False" with the gold letter if no option is found.
        return is_equal(infer_choice(extracted, item.choices, grader.profile) or "False", gold)
    if is_equal(extracted, gold):
        return True
    named = _NAMED_VALUE.match(extracted)
    return named is not None and not grader.parity and is_equal(named[1], gold)


BENCHMARKS = (MathVision(),)
