"""A gold answer passes its own grader, and another row's fails: what the grader cannot tell cannot be trained on."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from curation.folders import OPEN, StepOutcome
from curation.grading import answered, graded, judge_identity
from curation.rows import CuratedRow
from curation.settings import Strict
from curation.work import Work
from judge.client import Judge
from judge.verdict import Outcome as Verdict


class VerifyGoldSettings(Strict):
    """What is asked of a gold answer."""

    shuffled: bool = True
    """Another answer of the same group has to fail."""
    on_open: Literal["keep", "drop"] = "keep"
    """What happens to rows that nobody could decide, as when no judge is named; they are counted as open either way."""


SETTINGS = VerifyGoldSettings
CODE = ("curation.grading",)
_OTHERS = 3


def key_of(work: Work) -> dict[str, object]:
    """Who judges."""
    return {"judge": judge_identity(work.curation.file.judge)}


async def apply(work: Work) -> StepOutcome:
    """Grade each gold, and a wrong one."""
    judge, settings = Judge(work.curation.file.judge), work.step.settings
    kept, dropped, notes, waiting = list[CuratedRow](), list[tuple[CuratedRow, str]](), Counter[str](), 0
    others = _others(work.rows, work.curation.file.seed) if settings.shuffled else {}
    try:
        for row in work.rows:
            problem, is_open, outage = await _problem(row, others.get(row.key, ()), judge)
            waiting += outage
            if not problem:
                kept.append(row)
            elif is_open and settings.on_open == "keep":
                notes["kept though open"] += 1
                kept.append(replace(row, facts={**row.facts, "gold.open": problem}))
            else:
                dropped.append((row, f"{OPEN}{problem}" if is_open else problem))
    finally:
        await judge.aclose()
    notes["without another answer to shuffle with"] = len(work.rows) - len(others) if settings.shuffled else 0
    return StepOutcome(kept=kept, dropped=dropped, waiting=waiting, notes=dict(notes))


async def _problem(row: CuratedRow, others: Sequence[str], judge: Judge) -> tuple[str, bool, bool]:
    """(what is wrong, whether that is open, whether an outage is why)."""
    open_, outage = "", False
    for gold in row.gold:
        found = await graded(row, answered(gold), judge)
        if found.outcome is Verdict.INCORRECT:
            return f"gold fails its own grader: {gold[:80]!r} by {found.decided_by}", False, False
        if found.outcome is Verdict.UNDECIDED:
            open_, outage = f"gold was not decided: {found.why}", outage or found.outage
    passed, undecided = "", ""
    for other in others:
        found = await graded(row, answered(other), judge)
        if found.outcome is Verdict.INCORRECT:
            return open_, bool(open_), outage
        if found.outcome is Verdict.CORRECT:
            passed = f"another answer passes, too: {other[:80]!r} for {row.gold[0][:80]!r} by {found.decided_by}"
        else:
            undecided, outage = f"another answer was not decided: {found.why}", outage or found.outage
    if passed and not undecided:
        return passed, False, False
    open_ = open_ or undecided
    return open_, bool(open_), outage


def _others(rows: Sequence[CuratedRow], seed: int) -> dict[str, list[str]]:
    """Key -> a few answers of other rows of the group that are none of its own; drawn by hash. One of them may say the same
    in other words, as 0.5 does for 1/2; a grader that lets all of them pass tells nothing apart.
    """
    pools: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        pools[row.group, row.data_source].append(row.gold[0])
    distinct = {name: sorted(set(pool)) for name, pool in pools.items()}
    found: dict[str, list[str]] = {}
    for row in rows:
        pool, own = distinct[row.group, row.data_source], {_plain(gold) for gold in row.gold}
        start = int.from_bytes(hashlib.sha256(f"{seed}\0{row.key}".encode()).digest()[:8], "big")
        for step in range(len(pool)):
            if _plain(other := pool[(start + step) % len(pool)]) not in own:
                found.setdefault(row.key, []).append(other)
                if len(found[row.key]) == _OTHERS:
                    break
    return found


def _plain(text: str) -> str:
    return "".join(text.lower().split())
