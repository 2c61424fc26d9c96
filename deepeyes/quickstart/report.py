"""The quickstart's report: one page that tells the story to someone who knows nothing of the project."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.files import write_whole
from agent.records import EpisodeKey
from agent.trajectory import read_rollouts
from deepeyes.quickstart.bases import base_of
from evaluation.reports.run_page import interval, percent
from evaluation.runs.folder import Latest
from evaluation.runs.rows import ScoreRow, read_scores
from evaluation.runs.summary import RunSummary, read_summary
from viewer.static_page import episode_card, line_chart, page, table

_NAMES = {"base": "untrained", "sft": "after cold start (SFT)", "rl": "after RL (GRPO)"}


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
            if not rollout.episode.failed and facts.step is not None:
                used[facts.category, facts.step].append(rollout.episode.calls() > 0)
    except FileNotFoundError:
        return {}
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (kind, step), calls in sorted(used.items()):
        series[f'"{kind}" questions'].append((float(step), sum(calls) / len(calls)))
    return dict(series)


def _title(directory: Path) -> str:
    base = base_of(directory / "models/base")
    return base.title if base else "vision-language model"


def _summaries(directory: Path) -> dict[str, RunSummary]:
    runs = {name: directory / "eval" / name for name in _NAMES}
    return {name: read_summary(run) for name, run in runs.items() if (run / "summary.json").exists()}


def _results(summaries: Mapping[str, RunSummary]) -> str:
    rows = []
    for name, summary in summaries.items():
        look, quick = summary.categories["look"], summary.categories["quick"]
        rows.append(
            [
                _NAMES[name],
                percent(summary.accuracy),
                interval(summary),
                percent(look.accuracy),
                percent(quick.accuracy),
                percent(look.tool_rate),
                percent(quick.tool_rate),
                str(summary.not_evaluated),
            ]
        )
    header = [
        "model", "accuracy", "95 % interval", 'right on "look"', 'right on "quick"', 'tool used, "look"', 'tool used, "quick"',
        "not evaluated",
    ]  # fmt: skip
    return table(header, rows, strong=len(rows) - 1)


def _agreement(metrics: Sequence[Mapping[str, Any]]) -> str:
    values = [
        row["training/rollout_actor_probs_pearson_corr"]
        for row in metrics
        if "training/rollout_actor_probs_pearson_corr" in row
    ]
    if not values:
        return ""
    return (
        f"<p>vLLM (which samples) and the trainer (which learns) must give the same probabilities for the same tokens. Over all "
        f"{len(values)} steps their correlation was at least <strong>{min(values):.7f}</strong>, measured on the weights as they "
        "were trained.</p>"
    )


def _second_opinions(directory: Path) -> str:
    """What the LLM judge said beside the rules, if `--judge vllm` asked one."""
    try:
        facts = [rollout.facts for rollout in read_rollouts(directory / "rl/rollouts")]
    except FileNotFoundError:
        return ""
    said = [(one.second_opinion, one.correct) for one in facts if one.second_opinion]
    if not said:
        return ""
    decided = [(word == "correct") == correct for word, correct in said if word != "undecided"]
    agreed = f", and agreed with the rules on {percent(sum(decided) / len(decided))} of those" if decided else ""
    return (
        f"<p>An LLM judge behind vLLM was asked about {len(said)} answers while this ran, for the record only. It gave a readable "
        f"verdict on {percent(len(decided) / len(said))}{agreed}. It is the cold-started model of one million parameters, so "
        "that the protocol works is all this shows.</p>"
    )


def _episodes(directory: Path, count: int = 3) -> str:
    """The same questions before and after RL, those first where the outcome changed."""
    runs: dict[str, Latest] = {}
    scores: dict[str, dict[str, ScoreRow]] = {}
    for name in ("sft", "rl"):
        runs[name] = Latest(directory / "eval" / name)
        scored = (directory / "eval" / name / "scores.jsonl").exists()
        scores[name] = {row.item_id: row for row in read_scores(directory / "eval" / name)} if scored else {}
    shared = [
        item for item in scores["sft"] if item in scores["rl"] and all(EpisodeKey(item) in run for run in runs.values())
    ]
    shared.sort(key=lambda item: (bool(scores["sft"][item].correct), not scores["rl"][item].correct))
    parts = []
    for item in [*shared[: count - 1], *shared[-1:]]:
        cards = "".join(
            episode_card(
                _NAMES[name],
                runs[name][EpisodeKey(item)],
                gold=scores[name][item].gold,
                correct=scores[name][item].correct,
            )
            for name in ("sft", "rl")
        )
        parts.append(f'<h3 class="soft">Question {html.escape(item)}</h3><div class="grid">{cards}</div>')
    return "".join(parts)


def _stage_times(directory: Path) -> str:
    parts = []
    for name in ("data", "sft", "rl", "eval"):
        path = directory / "stages" / f"{name}.json"
        if path.exists():
            parts.append(f"{name} {json.loads(path.read_text())['elapsed_s']:.0f} s")
    return ", ".join(parts)


def _verdict(summaries: Mapping[str, RunSummary], success_accuracy: float) -> str:
    accuracy = summaries["rl"].accuracy
    if accuracy is not None and accuracy >= success_accuracy:
        return f'<p class="good">This run passed: at least {percent(success_accuracy)} was expected after RL.</p>'
    return (
        f'<p class="bad">This run fell short: {percent(accuracy)} after RL, where a healthy run reaches '
        f"{percent(success_accuracy)} (docs/results.md).</p>"
    )


def _charts(directory: Path, metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
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


def _headline(summaries: Mapping[str, RunSummary], success_accuracy: float) -> str:
    if not {"sft", "rl"} <= summaries.keys():
        return ""
    return (
        f"<p>Accuracy on {summaries['rl'].items} held-out questions went from <strong>"
        f"{percent(summaries['sft'].accuracy)}</strong> after the cold start to <strong class='good'>"
        f"{percent(summaries['rl'].accuracy)}</strong> after RL. What the model learned in between is <em>when to use "
        "its tool</em>.</p>" + _verdict(summaries, success_accuracy)
    )


def write_report(directory: Path, path: Path, *, success_accuracy: float) -> None:
    """Write the page from whatever the run has produced so far.

    Args:
        directory: The run.
        path: Of the page; replaced as a whole.
        success_accuracy: What the run is held against.
    """
    summaries = _summaries(directory)
    metrics = _rows(directory / "rl/metrics.jsonl")
    charts = _charts(directory, metrics)
    cards = "".join(f'<section class="card"><h3>{title}</h3>{chart}</section>' for title, chart in charts)
    headline = _headline(summaries, success_accuracy)
    results = f'<h2>Before and after</h2><section class="card">{_results(summaries)}</section>' if summaries else ""
    body = f"""
<h1>A vision-language model learns when to write code</h1>
<p class="soft">DeepEyes quickstart · {html.escape(_stage_times(directory))} · on a CPU, with a {_title(directory)} of one
million parameters</p>
{headline}
<section class="card"><h3>What you are looking at</h3>
<p>The model sees a board of coloured tiles at a quarter of its size, and is asked for the colour of one of them. It may answer at
once, or first write a line of Python that crops the tile; the code really runs, in a notebook session of the sandbox, and the
crop comes back as a new image.</p>
<p><strong>Cold start</strong> (LLaMA-Factory) taught it the format from demonstrations. They carry a bad habit: questions that start with
&ldquo;Quickly name&rdquo; are mostly answered by guessing, which is right one time in four. <strong>RL</strong> (GRPO with verl, Ray
and vLLM) then let it try each question eight times and rewarded what came out right: 0.8 for the answer, 0.2 for the format.
Nobody told it to use the tool.</p></section>
{results}
<p class="soft">Answers were decided by rules alone (the colour must be the word itself). An
outage of ours would be counted under &ldquo;not evaluated&rdquo;, never as a wrong answer.</p>
<h2>How it went</h2><div class="grid">{cards}</div>
{_agreement(metrics)}
{_second_opinions(directory)}
<h2>Whole episodes, before and after RL</h2>
<p class="soft">The same questions, asked of both models. Images are what the model was shown; code is what it wrote.</p>
{_episodes(directory)}
"""
    write_whole(path, page("DeepEyes quickstart", body))
