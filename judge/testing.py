"""A judge made of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from judge.verdict import Outcome, Verdict


class FakeJudge:
    """Gives the outcome that was set for an answer; UNDECIDED for all others."""

    def __init__(self, outcomes: Mapping[str, Outcome] | None = None) -> None:
        self._outcomes = dict(outcomes or {})
        self.asked: list[tuple[str | None, str]] = []

    async def judge(
        self, answer: str | None, gold: str | Sequence[str], *, question: str, prompt: str | None = None
    ) -> Verdict:
        self.asked.append((answer, question))
        outcome = self._outcomes.get(answer or "", Outcome.UNDECIDED)
        return Verdict(outcome=outcome, decided_by="judge:fake")
