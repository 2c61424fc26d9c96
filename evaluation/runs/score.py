"""Score what was committed: items + episodes -> scores.jsonl, summary.json. No model is asked; a judge perhaps, and only for
what its cache does not hold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.episode import Episode
from agent.records import EpisodeKey
from agent.scheduling import for_each
from evaluation.benchmarks import Benchmark, Item, Scored
from evaluation.runs.folder import (
    Latest,
    RunMismatch,
    is_empty,
    prediction_of,
    read_items,
    read_run,
    write_whole,
)
from evaluation.runs.tool_use import episode_facts
from evaluation.scoring.grader import Grade, Grader
from evaluation.statistics import pass_at_k, totals

_NO_FACTS: dict[str, Any] = {
    "stop_reason": "not_run", "failure": "", "turns": 0, "calls": [], "tool_calls": 0, "tool_errors": 0, "reply_tokens": 0,
    "prompt_tokens": 0, "reply_s": 0.0, "tool_s": 0.0, "wall_s": 0.0, "images_seen": 0, "format_errors": [], "cut": False,
}  # fmt: skip










async def score(directory: Path, benchmark: Benchmark, grader: Grader, *, max_in_flight: int = 64) -> dict[str, Any]:
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
    items, run = read_items(directory), read_run(directory)
    samples = int(run.get("samples", 1))
    episodes = Latest(directory)
    unknown = [key.item_id for key in episodes if key.item_id not in items]
    if unknown:
        raise RunMismatch(
            f"{directory} holds {len(unknown)} episodes of items that the benchmark does not have, such as {unknown[0]!r}; "
            "is it another benchmark's run?"
        )
    work = [(item, sample) for item in items.values() for sample in range(samples)]
    rows: dict[EpisodeKey, dict[str, Any]] = {}

    async def one(entry: tuple[Item, int]) -> None:
        item, sample = entry
        key = EpisodeKey(item.item_id, sample)
        rows[key] = await _row(item, sample, episodes.get(key), benchmark, grader)

    if grader.has_llm:
        try:
            await for_each(work, one, max_in_flight=max_in_flight)
        except ExceptionGroup as group:
            # One misconfigured judge fails many questions in the same way; one of them tells all.
            raise group.exceptions[0] from None
    else:
        for entry in work:
            await one(entry)
    ordered = [rows[EpisodeKey(item.item_id, sample)] for item, sample in work]
    write_whole(directory / "scores.jsonl", "".join(json.dumps(row) + "\n" for row in ordered))
    counted = {"samples": samples, "unreadable_lines": episodes.unreadable}
    summary = summarise(ordered, items, benchmark, grader) | counted
    write_whole(directory / "summary.json", json.dumps(summary, indent=1))
    return summary


async def _row(
    item: Item, sample: int, episode: Episode | None, benchmark: Benchmark, grader: Grader
) -> dict[str, Any]:
    facts = _NO_FACTS if episode is None else episode_facts(episode)
    prediction = ""
    if episode is None:
        grade = Grade(correct=None, decided_by="not_run")
    elif episode.failed:
        grade = Grade(correct=None, decided_by="failed")
    elif is_empty(episode):
        grade = Grade(correct=None, decided_by="empty_reply")
    else:
        read = prediction_of(episode)
        prediction = read.text
        grade = await benchmark.grade(item, read, grader)
    return {
        "item_id": item.item_id,
        "sample": sample,
        "category": item.category,
        "gold": item.gold,
        "prediction": prediction[:2000],
        **_grade_to_dict(grade),
        **facts,
    }


def _grade_to_dict(grade: Grade) -> dict[str, Any]:
    return {
        "correct": grade.correct,
        "score": grade.score,
        "partial": grade.partial,
        "decided_by": grade.decided_by,
        "extracted": grade.extracted[:500],
        "extra": dict(grade.extra),
        "judge_tokens": grade.judge_tokens,
    }




def scored(rows: Sequence[Mapping[str, Any]], items: Mapping[str, Item], sample: int) -> Iterator[Scored]:
    """The rows of one sample that were evaluated, as benchmarks want them."""
    names = ("correct", "decided_by", "extracted", "partial", "extra", "judge_tokens")
    for row in rows:
        if row["sample"] == sample and row["correct"] is not None:
            yield Scored(items[row["item_id"]], Grade(**{name: row[name] for name in names}))


def summarise(rows: list[dict[str, Any]], items: Mapping[str, Item], benchmark: Benchmark, grader: Grader) -> dict[str, Any]:
    """Totals of scored rows. What was not evaluated is counted apart and never wrong."""
    by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    samples = sorted({row["sample"] for row in rows})
    tables = [benchmark.scores(list(scored(rows, items, sample)), grader.profile) for sample in samples]
    table = {
        name: sum(found) / len(found)
        for name in dict.fromkeys(name for table in tables for name in table)
        if (found := [table[name] for table in tables if name in table])
    }
    decided = Counter(row["decided_by"] for row in rows)
    return totals(rows) | {
        "benchmark": benchmark.name,
        "headline": benchmark.headline,
        "headline_score": table.get(benchmark.headline),
        "points": benchmark.points,
        "scores": table,
        "note": benchmark.note,
        "profile": grader.profile.name,
        "parity": grader.parity,
        "judge": grader.judge_name,
        "judge_prompts": dict(sorted(grader.prompts.items())),
        "judge_tokens": sum(row["judge_tokens"] for row in rows),
        "at_k": _at_k(rows),
        "categories": {name: totals(members) for name, members in sorted(by_category.items())},
        "decided_by": dict(sorted(decided.items())),
        "stop_reasons": dict(sorted(Counter(row["stop_reason"] for row in rows).items())),
        "failures": dict(Counter(row["failure"][:200] for row in rows if row["failure"]).most_common(5)),
    }




def _at_k(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """mean@n and pass@k for k = 1, 2, 4 … n, over items all of whose samples were evaluated."""
    by_item: dict[str, list[bool | None]] = defaultdict(list)
    for row in rows:
        by_item[row["item_id"]].append(row["correct"])
    n = max((len(values) for values in by_item.values()), default=0)
    whole = [[bool(value) for value in values] for values in by_item.values() if None not in values and len(values) == n]
    if n < 2 or not whole:
        return {}
    found = {f"mean@{n}": sum(map(sum, whole)) / (n * len(whole)), "items": float(len(whole))}
    k = 1
    while k <= n:
        found[f"pass@{k}"] = sum(pass_at_k(n, sum(values), k) for values in whole) / len(whole)
        k *= 2
    return found
