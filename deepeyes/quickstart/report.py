"""The quickstart's report: one page that tells the story to someone who knows nothing of the project."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from agent.files import write_whole
from agent.records import EpisodeKey
from agent.trajectory import read_rollouts
from deepeyes.quickstart.bases import base_of
from deepeyes.quickstart.outcome import NEEDED, NOT_NEEDED, adaptivity, shortcomings
from evaluation.reports.run_page import interval, percent
from evaluation.runs.folder import Latest
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.summary import RunSummary, read_summary
from viewer.charts import line_chart
from viewer.static_page import episode_card
from viewer.templates import link_to, render

_NAMES = {"base": "untrained", "sft": "after cold start (SFT)", "rl": "after RL (GRPO)"}
_KINDS = {NEEDED: "small mark: a crop is needed", NOT_NEEDED: "large mark: none is needed"}


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    latest = {float(row[x]): float(row[y]) for row in rows if x in row and y in row}
    return sorted(latest.items())


def _tool_use_by_kind(directory: Path) -> dict[str, list[tuple[float, float]]]:
    """Share of rollouts with a tool call, per kind of question and training step."""
    used: dict[tuple[str, int], list[bool]] = defaultdict(list)
    try:
        for rollout in read_rollouts(directory / "rl/rollouts"):
            facts = rollout.facts
            if not rollout.episode.failed and facts.step is not None and not facts.validation:
                used[facts.category, facts.step].append(rollout.episode.calls() > 0)
    except FileNotFoundError:
        return {}
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (kind, step), calls in sorted(used.items()):
        series[_KINDS.get(kind, kind)].append((float(step), sum(calls) / len(calls)))
    return dict(series)


def _title(directory: Path) -> str:
    base = base_of(directory / "models/base")
    return base.title if base else "vision-language model"


def _summaries(directory: Path) -> dict[str, RunSummary]:
    runs = {name: directory / "eval" / name for name in _NAMES}
    return {name: read_summary(run) for name, run in runs.items() if (run / "summary.json").exists()}


def _results(summaries: Mapping[str, RunSummary]) -> list[list[str]]:
    """A row a number, a column a model."""
    whole = list(summaries.values())
    needed, other = ([one.categories.get(kind) for one in whole] for kind in (NEEDED, NOT_NEEDED))
    return [
        ["accuracy", *(percent(one.accuracy) for one in whole)],
        ["95 % interval", *(interval(one) for one in whole)],
        ["right where a crop is needed", *(percent(one.accuracy if one else None) for one in needed)],
        ["right where none is needed", *(percent(one.accuracy if one else None) for one in other)],
        ["tool used where a crop is needed", *(percent(one.tool_rate if one else None) for one in needed)],
        ["tool used where none is needed", *(percent(one.tool_rate if one else None) for one in other)],
        ["adaptivity", *(_adaptivity(one) for one in whole)],
        ["not evaluated", *(str(one.not_evaluated) for one in whole)],
    ]


def _adaptivity(summary: RunSummary) -> str:
    found = adaptivity(summary)
    return "–" if found is None else f"{found:.2f}"


def _agreement(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """Correlation of the probabilities of vLLM and of the trainer, a step."""
    name = "training/rollout_actor_probs_pearson_corr"
    return [row[name] for row in metrics if name in row]


def _second_opinions(directory: Path) -> dict[str, Any]:
    """What the LLM judge said beside the rules, if `--judge vllm` asked one."""
    try:
        facts = [rollout.facts for rollout in read_rollouts(directory / "rl/rollouts")]
    except FileNotFoundError:
        return {"asked": 0}
    said = [(one.second_opinion, one.correct) for one in facts if one.second_opinion]
    decided = [(word == "correct") == correct for word, correct in said if word != "undecided"]
    return {
        "asked": len(said),
        "readable": percent(len(decided) / len(said)) if said else "",
        "agreed": percent(sum(decided) / len(decided)) if decided else "",
    }


_LEARNED, _LOST, _STILL_WRONG, _LEFT_AWAY, _RIGHT = _OUTCOMES = (
    "Learned: wrong before, right after RL",
    "Lost: right before, wrong after RL",
    "Still wrong after RL",
    "Right before and after, without the tool that was used before",
    "Right before and after, in the same way",
)


def _outcome(before: ScoreRow, after: ScoreRow) -> str:
    """What became of a question after the cold start and after RL, in words."""
    if before.correct != after.correct:
        return _LEARNED if after.correct else _LOST
    if not after.correct:
        return _STILL_WRONG
    return _LEFT_AWAY if before.tool_calls and not after.tool_calls else _RIGHT


def _outcomes(directory: Path) -> list[dict[str, Any]]:
    """Every outcome, how many questions had it, and the first of them in both episodes."""
    runs = [directory / "eval" / name for name in ("sft", "rl")]
    if not all((run / "scores.jsonl").exists() for run in runs):
        return []
    before, after = ({row.item_id: row for row in read_scores(run) if row.correct is not None} for run in runs)
    episodes = [Latest(run) for run in runs]
    found = []
    for said in _OUTCOMES:
        items = [item for item in before if item in after and _outcome(before[item], after[item]) == said]
        item = next((item for item in items if all(EpisodeKey(item) in one for one in episodes)), "")
        cards = [
            episode_card(_NAMES[name], run[EpisodeKey(item)], gold=row[item].gold, correct=row[item].correct)
            for name, run, row in zip(("sft", "rl"), episodes, (before, after), strict=True)
            if item
        ]
        found.append({"said": said, "count": len(items), "item": item, "cards": cards})
    return found


def _stage_times(directory: Path) -> str:
    parts = []
    for name in ("data", "sft", "rl", "eval"):
        path = directory / "stages" / f"{name}.json"
        if path.exists():
            parts.append(f"{name} {json.loads(path.read_text())['elapsed_s']:.0f} s")
    return ", ".join(parts)


def _charts(directory: Path, metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(title, chart) of what went on while it learned."""
    sft = _rows(directory / "models/sft/trainer_log.jsonl")
    return [
        ("Cold start: loss", line_chart({"SFT loss": _points(sft, "current_steps", "loss")}, x_label="SFT step")),
        (
            "RL: reward and accuracy",
            line_chart(
                {
                    "reward": _points(metrics, "step", "episode/score/mean"),
                    "accuracy": _points(metrics, "step", "episode/acc/mean"),
                },
                x_label="GRPO step (64 rollouts each)",
                y_range=(0.0, 1.0),
            ),
        ),
        (
            "RL: share of rollouts that used the tool",
            line_chart(_tool_use_by_kind(directory), x_label="GRPO step", y_range=(0.0, 1.0)),
        ),
        (
            "RL: seconds per step",
            line_chart(
                {
                    "whole step": _points(metrics, "step", "timing_s/step"),
                    "rollouts with code": _points(metrics, "step", "timing_s/gen"),
                    "update": _points(metrics, "step", "timing_s/update_actor"),
                },
                x_label="GRPO step",
            ),
        ),
    ]


def _links(directory: Path, page: Path) -> dict[str, str]:
    """The reports of the evaluations, by model, as the page reaches them."""
    links = {_NAMES[name]: link_to(directory / "eval" / name / "report.html", page) for name in _NAMES}
    return {name: link for name, link in links.items() if link}


def write_report(directory: Path, path: Path) -> None:
    """Write the page from whatever the run has produced so far.

    Args:
        directory: The run.
        path: Of the page; replaced as a whole.
    """
    summaries, metrics = _summaries(directory), _rows(directory / "rl/metrics.jsonl")
    both = {"sft", "rl"} <= summaries.keys()
    compared = [summaries[name] for name in ("sft", "rl")] if both else []
    page = render(
        Path(__file__).with_suffix(".html"),
        title="DeepEyes quickstart",
        stages=_stage_times(directory),
        base=_title(directory),
        held_out=summaries["rl"].items if both else 0,
        accuracy=[percent(one.accuracy) for one in compared],
        adaptivity=[_adaptivity(one) for one in compared],
        shortcomings=shortcomings(compared[1]) if both else [],
        models=[_NAMES[name] for name in summaries],
        results=_results(summaries) if summaries else [],
        links=_links(directory, path),
        charts=_charts(directory, metrics),
        agreement=_agreement(metrics),
        opinions=_second_opinions(directory),
        outcomes=_outcomes(directory),
        rollouts=directory / "rl",
    )
    write_whole(path, page)
