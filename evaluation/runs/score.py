"""Score what was committed: items + episodes -> scores.jsonl, summary.json. No model is asked; a judge perhaps, and only for
what its cache does not hold.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from agent.episode import Episode
from agent.records import EpisodeKey
from agent.scheduling import for_each
from evaluation.benchmarks import Benchmark, Item, Scored
from evaluation.errors import BenchmarkError
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import Latest, is_empty, prediction_of, read_items
from evaluation.runs.outages import outages_of
from evaluation.runs.provenance import read_provenance
from evaluation.runs.rows import EpisodeFacts, ScoreRow, write_scores
from evaluation.runs.summary import RunSummary, read_summary, write_summary
from evaluation.runs.tool_use import episode_facts
from evaluation.scoring.grader import Grade, Grader, Prediction
from evaluation.statistics import pass_at_k, totals
from judge.client import JudgeMisconfigured
from judge.rules import RULES_VERSION

_log = logging.getLogger(__name__)
REPEATED_OUTAGE = "rule:repeated_outage"
_PREDICTION_CHARS, _EXTRACTED_CHARS, _FAILURE_CHARS = 2000, 500, 200


async def score(directory: Path, benchmark: Benchmark, grader: Grader, *, max_in_flight: int = 64) -> RunSummary:
    """Grade the committed episodes and write `scores.jsonl` and `summary.json`.

    Args:
        directory: A run, opened before; its episodes may be fewer than its items.
        benchmark: Of the run.
        grader: Profile and judge.
        max_in_flight: Questions to the judge at once.

    Raises:
        RunMismatch: The episodes are of other items.
        JudgeMisconfigured: The judge refuses every request.
    """
    items, settings = read_items(directory), read_provenance(directory).settings
    samples, outages = settings.samples, outages_of(directory, settings)
    decided = outages.repeated if settings.repeated_outage == "wrong" else {}
    episodes = Latest(directory)
    unknown = [key.item_id for key in episodes if key.item_id not in items]
    if unknown:
        raise RunMismatch(
            f"{directory} holds {len(unknown)} episodes of items that the benchmark does not have, such as {unknown[0]!r}; "
            "is it another benchmark's run?"
        )
    work = [EpisodeKey(item_id, sample) for item_id in items for sample in range(samples)]
    rows: dict[EpisodeKey, ScoreRow] = {}

    async def one(key: EpisodeKey) -> None:
        rows[key] = await _row(items[key.item_id], key.sample, episodes.get(key), benchmark, grader, decided.get(key, ""))

    if grader.has_llm:
        try:
            await for_each(work, one, max_in_flight=max_in_flight)
        except ExceptionGroup as group:
            # One misconfigured judge fails many questions in the same way; one of them tells all.
            raise group.exceptions[0] from None
    else:
        for key in work:
            await one(key)
    ordered = [rows[key] for key in work]
    write_scores(directory, ordered)
    summary = summarise(ordered, items, benchmark, grader, samples=samples, unreadable_lines=episodes.unreadable)
    repeated = {str(key): why[:_FAILURE_CHARS] for key, why in outages.repeated.items()}
    summary = replace(
        summary, outages=outages.attempts, repeated_outages=repeated, rules_before=_rules_before(directory)
    )
    write_summary(directory, summary)
    return summary


def _rules_before(directory: Path) -> str | None:
    """The version of the rules of the scoring that is replaced, if it is another; else what that scoring says of its own."""
    if not (directory / "summary.json").exists():
        return None
    try:
        before = read_summary(directory)
    except RunMismatch:
        return None  # a scoring that nobody can read any more
    return before.rules if before.rules != RULES_VERSION else before.rules_before


_FACTS = tuple(one.name for one in fields(EpisodeFacts))


async def _row(
    item: Item, sample: int, episode: Episode | None, benchmark: Benchmark, grader: Grader, outage_counts: str
) -> ScoreRow:
    """One row. `outage_counts`: why an outage that ended the episode is scored all the same; empty if it is not."""
    facts, prediction, reason = EpisodeFacts() if episode is None else episode_facts(episode), "", ""
    if item.unread:
        grade, reason = Grade(correct=None, decided_by="unusable_row"), item.unread
    elif episode is None:
        grade = Grade(correct=None, decided_by="not_run")
    elif outage_counts:
        grade, reason = Grade(correct=False, decided_by=REPEATED_OUTAGE), outage_counts
    elif episode.failed:
        grade = Grade(correct=None, decided_by="failed")
    elif is_empty(episode):
        grade = Grade(correct=None, decided_by="empty_reply")
    else:
        read = prediction_of(episode)
        prediction = read.text
        grade, reason = await _graded(item, read, benchmark, grader)
    return ScoreRow(
        item_id=item.item_id,
        sample=sample,
        category=item.category,
        gold=item.gold,
        prediction=prediction[:_PREDICTION_CHARS],
        correct=grade.correct,
        score=grade.score,
        partial=grade.partial,
        decided_by=grade.decided_by,
        reason=reason,
        extracted=grade.extracted[:_EXTRACTED_CHARS],
        extra=dict(grade.extra),
        judge_tokens=grade.judge_tokens,
        **{name: getattr(facts, name) for name in _FACTS},
    )


async def _graded(item: Item, read: Prediction, benchmark: Benchmark, grader: Grader) -> tuple[Grade, str]:
    """A grade, and the reason if there is none: what a scorer raises is about this item, and the others are scored."""
    try:
        return await benchmark.grade(item, read, grader), ""
    except (BenchmarkError, JudgeMisconfigured):
        raise  # the whole file, or every question to the judge
    except Exception as error:  # noqa: BLE001 - scorers are one file each, and any may meet what it did not expect
        reason = f"item {item.item_id}: the scorer of {benchmark.name} raised {type(error).__name__}: {error}"
        _log.warning("%s; it is not evaluated. The benchmark's file in evaluation/benchmarks has it", reason, exc_info=True)
        return Grade(correct=None, decided_by="scorer_failed"), reason


def scored(rows: Sequence[ScoreRow], items: Mapping[str, Item], sample: int) -> Iterator[Scored]:
    """The rows of one sample that were evaluated, as benchmarks want them."""
    for row in rows:
        if row.sample == sample and row.correct is not None:
            yield Scored(items[row.item_id], row.grade)


def summarise(
    rows: Sequence[ScoreRow],
    items: Mapping[str, Item],
    benchmark: Benchmark,
    grader: Grader,
    *,
    samples: int,
    unreadable_lines: int = 0,
) -> RunSummary:
    """Totals of scored rows. What was not evaluated is counted apart and never wrong."""
    by_category: dict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        by_category[row.category].append(row)
    tables = [benchmark.scores(list(scored(rows, items, sample)), grader.profile) for sample in range(samples)]
    table = {
        name: sum(found) / len(found)
        for name in dict.fromkeys(name for table in tables for name in table)
        if (found := [table[name] for table in tables if name in table])
    }
    at_k, at_k_items = _at_k(rows)
    return RunSummary(
        **asdict(totals(rows)),
        benchmark=benchmark.name,
        headline=benchmark.headline,
        headline_score=table.get(benchmark.headline),
        points=benchmark.points,
        scores=table,
        note=benchmark.note,
        profile=grader.profile.name,
        parity=grader.parity,
        judge=grader.judge_name,
        judge_prompts=dict(sorted(grader.prompts.items())),
        judge_tokens=sum(row.judge_tokens for row in rows),
        samples=samples,
        at_k=at_k,
        at_k_items=at_k_items,
        categories={name: totals(members) for name, members in sorted(by_category.items())},
        decided_by=dict(sorted(Counter(row.decided_by for row in rows).items())),
        stop_reasons=dict(sorted(Counter(str(row.stop_reason) for row in rows).items())),
        model_faults=dict(Counter(call.error for row in rows for call in row.calls if call.error).most_common()),
        failures=dict(Counter(why[:_FAILURE_CHARS] for row in rows if (why := row.failure or row.reason)).most_common(5)),
        unreadable_lines=unreadable_lines,
        rules=RULES_VERSION,
    )


def _at_k(rows: Sequence[ScoreRow]) -> tuple[dict[str, float], int]:
    """(mean@n and pass@k for k = 1, 2, 4 … n, items), over items all of whose samples were evaluated."""
    by_item: dict[str, list[bool | None]] = defaultdict(list)
    for row in rows:
        by_item[row.item_id].append(row.correct)
    n = max((len(values) for values in by_item.values()), default=0)
    whole = [[bool(value) for value in values] for values in by_item.values() if None not in values and len(values) == n]
    if n < 2 or not whole:
        return {}, 0
    found = {f"mean@{n}": sum(map(sum, whole)) / (n * len(whole))}
    k = 1
    while k <= n:
        found[f"pass@{k}"] = sum(pass_at_k(n, sum(values), k) for values in whole) / len(whole)
        k *= 2
    return found, len(whole)
