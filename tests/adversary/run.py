"""Running the tries, and what a counterexample is."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from judge.rules import Rules
from judge.verdict import Outcome
from tests.adversary import formulas, numbers, words
from tests.adversary.case import Case

MARKS = ("{}", "{}.", " {} ", "**{}**", "`{}`", '"{}"', "\n{}\n", "The answer is {}", "Answer: {}", "<b>{}</b>")
"""Layout that changes nothing."""


@dataclass
class Report:
    """What came of the tries."""

    tries: int = 0
    counterexamples: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(what is wrong, kind, gold, answer)."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(right or wrong as made, outcome) -> how often."""
    slowest_s: float = 0.0
    """Of this process's own processor time: what it waits for is bounded elsewhere, and a busy machine makes nothing slow."""


def attack(tries: int, seed: int) -> Report:
    """Judge so many made answers; a counterexample is an error, a wrong answer called right or a right one called wrong."""
    rng, rules, report = random.Random(seed), Rules(), Report()
    kinds = (*numbers.KINDS, *words.KINDS, *formulas.KINDS)
    while report.tries < tries:
        make = rng.choice(kinds)
        case = make(rng)
        for answers, made in ((case.right, "right"), (case.wrong, "wrong")):
            for answer in answers:
                _judge(rules, report, rng, make.__name__, case, answer, made)
        _judge(rules, report, rng, make.__name__, case, case.gold, "right")
    return report


def _judge(rules: Rules, report: Report, rng: random.Random, kind: str, case: Case, answer: str, made: str) -> None:
    layout = rng.choice(MARKS) if rng.random() < 0.3 else "{}"
    given = layout.replace("{}", answer)
    started = time.process_time()
    try:
        verdict = rules.judge(given, case.gold, question=case.question)
    except Exception as error:  # noqa: BLE001 - any error is a counterexample
        report.counterexamples.append((f"raised {error!r}", kind, case.gold, given))
        return
    finally:
        report.tries += 1
        report.slowest_s = max(report.slowest_s, time.process_time() - started)
    report.outcomes[made, verdict.outcome.value] += 1
    if verdict.outcome is (Outcome.INCORRECT if made == "right" else Outcome.CORRECT):
        report.counterexamples.append(
            (f"{made}, but {verdict.decided_by} says {verdict.outcome.value}", kind, case.gold, given)
        )
