"""A score over too few of a run's episodes, and what keeps the others from being scored."""

from __future__ import annotations

from evaluation.runs.rows import NOT_RUN
from evaluation.runs.summary import RunSummary

ENOUGH_FRAC = 0.95
"""Share of the episodes that must be evaluated for a run to end well."""
_SCORED = ("rule:", "judge:", "random")
_AGAIN = "the same command asks again what has no answer"
_SCORE_AGAIN = "score again with --stage score"
_REASONS = {
    NOT_RUN: ("there is no answer to it", f"{_AGAIN}; of imported answers, give a file that has them"),
    "empty_reply": ("the model's server sent an empty reply", "look at the server's log, and ask again in another --out"),
    "no_judge": ("only a judge can decide it, and there was none", f"{_SCORE_AGAIN} --judge-base-url URL"),
    "judge_outage": ("the judge did not answer", f"start it, and {_SCORE_AGAIN}"),
    "judge_unreadable": ("nobody can read what the judge said", f"ask `deepeyes judge doctor`, and {_SCORE_AGAIN}"),
}
"""Why nobody decided -> the same in words, and what to do."""


def not_evaluated(summary: RunSummary) -> dict[str, int]:
    """Why episodes were not evaluated -> how many, most first."""
    why = {name: count for name, count in summary.decided_by.items() if not name.startswith(_SCORED)}
    return dict(sorted(why.items(), key=lambda pair: -pair[1]))


def shortfall(summary: RunSummary) -> str:
    """What to say of a run of which too few episodes were evaluated: how many, why, what to do. Empty if enough were."""
    if summary.evaluated and summary.evaluated >= ENOUGH_FRAC * summary.episodes:
        return ""
    share = "nothing was" if not summary.evaluated else f"only {summary.evaluated} of {summary.episodes} episodes were"
    reason, count, step = _commonest(summary)
    wanted = f"a score wants {ENOUGH_FRAC:.0%}"
    return f"{share} evaluated, and {wanted}. The commonest reason ({count} x): {reason}. Next: {step}"


def _commonest(summary: RunSummary) -> tuple[str, int, str]:
    name, count = next(iter(not_evaluated(summary).items()), (NOT_RUN, summary.episodes))
    if name == "failed":
        reason, count = next(iter(summary.failures.items()), ("it failed", count))
        return reason, count, f"mend that; {_AGAIN}"
    reason, step = _REASONS.get(name, (name, _SCORE_AGAIN))
    return reason, count, step
