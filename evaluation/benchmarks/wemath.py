"""We-Math (testmini). Runqi Qiao et al.: "We-Math: Does Your Large Multimodal Model Achieve Human-like Mathematical
Reasoning?", 2024.

https://arxiv.org/abs/2407.01284 · 1,740 items: 525 problems of two or three steps, each asked as a whole (`2steps_multi`)
and step by step (`2steps_1`, `2steps_2`), read from VLMEvalKit's WeMath.tsv.

A problem shows insufficient knowledge (IK: a step and the whole wrong), inadequate generalisation (IG: steps right, whole
wrong), rote memorisation (RM: whole right, a step wrong; loose: all steps wrong for RM) or complete mastery. Score = 1 -
(IG/2 + RM + IK) / n. The reference divides by 525 whatever is asked, which gives nonsense for a subset: here n is the
number of problems with all their parts, which is 525 for the published file.
Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/wemath.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evaluation.benchmarks import Item, Scored
from evaluation.benchmarks._choices import ChoiceBenchmark
from evaluation.scoring.choices import grade_choice
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.scoring.profiles import Profile
from evaluation.tables.tsv import Row, need

_CHARACTERS = str.maketrans("", "", "><:.")


class WeMath(ChoiceBenchmark):
    """Multiple choice, scored problem by problem."""

    name = "wemath"
    title = "We-Math"
    num_items = 1740
    files = {"WeMath.tsv": "b5e969a075f01290a542411fb7766388"}
    suite = "math"
    headline = "Score (Strict)"
    columns = ("image", "question", "answer", "A", "B", "ID", "key")
    kept = ("ID", "key")
    ending = ""

    def _item(self, row: Row) -> Item:
        need(row, "ID", "key")
        return super()._item(row)

    async def grade(self, item: Item, prediction: Prediction, grader: Grader) -> Grade:
        """A judge grades it as any multiple choice; without one, the first letter after the last "Answer" counts."""
        if grader.has_llm:
            question = item.fields["question"]
            return await grade_choice(
                prediction.text, item.gold, item.choices, grader, question=question, item_id=item.item_id
            )
        tail = prediction.text.split("Answer")[-1].strip().translate(_CHARACTERS).strip()
        letter = tail[0] if tail and tail[0] in "ABCDEFGH" else ""
        return Grade(correct=letter == item.gold, decided_by="rule:choice" if letter else "rule:unparsed", extracted=letter)

    def scores(self, rows: Sequence[Scored], profile: Profile) -> dict[str, float]:
        """Strict and loose scores with their parts, as shares of the problems, and accuracy by number of steps."""
        return _table(rows)


def _table(rows: Sequence[Scored]) -> dict[str, float]:
    problems: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    for row in rows:
        kind, _, part = row.item.fields["key"].partition("_")
        problems[kind, row.item.fields["ID"]][part] = bool(row.score)
    whole = [(kind, parts) for (kind, _), parts in problems.items() if _complete(kind, parts)]
    n = len(whole)
    if not n:
        return {}
    counts: dict[str, int] = defaultdict(int)
    for kind, parts in whole:
        steps = [parts[str(number)] for number in range(1, int(kind[0]) + 1)]
        if parts["multi"]:
            counts["CompleteMastery (Strict)" if all(steps) else "RoteMemorization (Strict)"] += 1
            counts["CompleteMastery (Loose)" if any(steps) else "RoteMemorization (Loose)"] += 1
        else:
            counts["InadequateGeneralization" if all(steps) else "InsufficientKnowledge"] += 1
    lost = 0.5 * counts["InadequateGeneralization"] + counts["InsufficientKnowledge"]
    found = {"Score (Strict)": (n - lost - counts["RoteMemorization (Strict)"]) / n}
    found["Score (Loose)"] = (n - lost - counts["RoteMemorization (Loose)"]) / n
    for name in ("InsufficientKnowledge", "InadequateGeneralization", "CompleteMastery (Strict)", "CompleteMastery (Loose)"):
        found[name] = counts[name] / n
    for way in ("Strict", "Loose"):
        memorised, mastered = counts[f"RoteMemorization ({way})"], counts[f"CompleteMastery ({way})"]
        if memorised + mastered:
            found[f"RoteMemorization ({way})"] = memorised / (memorised + mastered)
    return found | _by_steps(rows)


def _complete(kind: str, parts: Mapping[str, bool]) -> bool:
    return kind in ("2steps", "3steps") and {"multi", *(str(n) for n in range(1, int(kind[0]) + 1))} <= parts.keys()


def _by_steps(rows: Sequence[Scored]) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        kind, _, part = row.item.fields["key"].partition("_")
        name = {"2steps": "Two-step(S2)", "3steps": "Three-step(S3)"}.get(kind, "") if part == "multi" else "One-step(S1)"
        groups[name].append(row.score)
    return {name: sum(values) / len(values) for name, values in sorted(groups.items()) if name}


BENCHMARKS = (WeMath(),)
