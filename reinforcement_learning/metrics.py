"""What a step's episodes say in its metrics. Imports neither verl nor torch.

Each rollout brings its `EpisodeNumbers` to the trainer, which counts them with `step_metrics`. Names are made as verl makes
its own (`val-core/<data source>/acc/mean@1`): section, of what, quantity, statistic. What each means: docs/metrics.md.
"""

from __future__ import annotations

import builtins
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.calls import calls_of
from agent.episode import Episode, StopReason
from agent.protocol import ToolCall

EQUAL = 1e-6
"""Rewards of a group that differ by no more are equal; their advantages are 0."""
CODE_KINDS = ("crop", "mark", "numerical", "other")
OTHER = "other"
_CUT = (
    StopReason.MAX_TURNS, StopReason.LENGTH, StopReason.CONTEXT_FULL, StopReason.TOKEN_BUDGET, StopReason.DEADLINE,
)  # fmt: skip
"""A limit ended the episode before the model did."""
_ERRORS_OF_OURS = frozenset(["KernelDied", "malformed", "refused", "too many calls", "unknown tool"])


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeNumbers:
    """What one scored rollout brings along."""

    episode_id: str
    source: str
    stop_reason: str
    reward: Mapping[str, float]
    """The parts of its reward and what else verl's validation shows of it; `acc` and `score` among them."""
    turns: int
    model_tokens: int
    observation_tokens: int
    calls: Mapping[str, int]
    """By tool; those of the recipe always, `unknown` for all others."""
    code: Mapping[str, int]
    """Calls of `python` by kind of code, all kinds always."""
    errors: Mapping[str, int]
    """Calls that ended in an error the model was told of, by class."""
    errors_by_tool: Mapping[str, int]
    seconds: Mapping[str, tuple[float, ...]]
    """Each wait by what was waited for: `sandbox` (a call without the program's own time), `program`, `search`, `judge`."""
    generate_s: float
    tools_s: float
    lookups: Mapping[str, int] = field(default_factory=dict)
    """Questions to something with a cache, `<what>`, and answers from the cache, `<what>_hits`."""
    image_names: tuple[str, ...] = ()
    """Of the run's store, in the order in which the model saw them."""


def episode_numbers(
    episode: Episode,
    *,
    source: str,
    tools: Sequence[str],
    reward: Mapping[str, float],
    observation_tokens: int,
    judge_s: float,
    lookups: Mapping[str, int],
    image_names: Sequence[str],
) -> EpisodeNumbers:
    """Count one episode.

    Args:
        episode: That was scored.
        source: Its data source.
        tools: Of the recipe; a name that the model made up is `unknown`.
        reward: See `EpisodeNumbers`.
        observation_tokens: That the model read after its first reply.
        judge_s: How long scoring took, waiting included.
        lookups: See `EpisodeNumbers`.
        image_names: See `EpisodeNumbers`.
    """
    calls, code = Counter(dict.fromkeys(tools, 0)), Counter(dict.fromkeys(CODE_KINDS, 0))
    errors: Counter[str] = Counter()
    errors_by_tool: Counter[str] = Counter()
    for call in calls_of(episode.turns):
        tool = call.tool if call.tool in tools else "unknown"
        calls[tool] += bool(call.tool)
        if call.tool == "python":
            code[call.kind] += 1
        if call.error:
            errors[error_name(call.error)] += 1
            errors_by_tool[tool] += bool(call.tool)
    return EpisodeNumbers(
        episode_id=episode.episode_id,
        source=source,
        stop_reason=episode.stop_reason.value,
        reward=dict(reward),
        turns=len(episode.turns),
        model_tokens=episode.num_tokens,
        observation_tokens=observation_tokens,
        calls=dict(calls),
        code=dict(code),
        errors=dict(errors),
        errors_by_tool=dict(errors_by_tool),
        seconds=_waits(episode) | {"judge": (judge_s,)},
        generate_s=sum(turn.reply_s for turn in episode.turns),
        tools_s=sum(turn.tool_s for turn in episode.turns),
        lookups=dict(lookups),
        image_names=tuple(image_names),
    )


def _waits(episode: Episode) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = defaultdict(list)
    for turn in episode.turns:
        if not isinstance(turn.action, ToolCall):
            continue
        if turn.action.name == "python":
            found["sandbox"].append(max(0.0, turn.tool_s - turn.program_s))
            found["program"].append(turn.program_s)
        elif turn.action.name in ("search", "image_search", "fetch_page"):
            found["search"].append(turn.tool_s)
    return {name: tuple(values) for name, values in found.items()}


def error_name(error: str) -> str:
    """A class of errors as a part of a metric's name; a class that a program made up is `other`."""
    known = isinstance(getattr(builtins, error, None), type) or error in _ERRORS_OF_OURS
    return error.replace(" ", "_") if known else OTHER


def step_metrics(episodes: Sequence[tuple[str, EpisodeNumbers]]) -> dict[str, float]:
    """The metrics of the rollouts that a step was trained on.

    Args:
        episodes: (group, numbers) of each.
    """
    numbers = [one for _, one in episodes]
    groups: dict[str, list[EpisodeNumbers]] = defaultdict(list)
    sources: dict[str, list[EpisodeNumbers]] = defaultdict(list)
    for group, one in episodes:
        groups[group].append(one)
        sources[re.sub(r"[^\w.-]+", "_", one.source) or "unknown"].append(one)
    found = _of_episodes(numbers) | _of_groups(list(groups.values())) | _of_calls(numbers) | _of_waits(numbers)
    for source, some in sources.items():
        found[f"source/{source}/count"] = float(len(some))
        for name in ("acc", "score", "tool_used", "tool_calls"):
            found[f"source/{source}/{name}/mean"] = mean(one.reward[name] for one in some)
    return found


def _of_episodes(numbers: Sequence[EpisodeNumbers]) -> dict[str, float]:
    names = sorted({name for one in numbers for name in one.reward})
    found = {f"episode/{name}/mean": mean(one.reward[name] for one in numbers if name in one.reward) for name in names}
    stops = Counter(one.stop_reason for one in numbers)
    # Every reason, also where there was none, so that a curve has no holes.
    found |= {f"episode/stop_{reason}_frac": stops[reason.value] / len(numbers) for reason in StopReason}
    return found | {
        "episode/count": float(len(numbers)),
        "episode/truncated_frac": mean(one.stop_reason in _CUT for one in numbers),
        "episode/turns/mean": mean(one.turns for one in numbers),
        "episode/turns/max": float(max(one.turns for one in numbers)),
        "episode/model_tokens/mean": mean(one.model_tokens for one in numbers),
        "episode/observation_tokens/mean": mean(one.observation_tokens for one in numbers),
        "episode/generate_sequences_s/mean": mean(one.generate_s for one in numbers),
        "episode/tool_calls_s/mean": mean(one.tools_s for one in numbers),
    }


def _of_groups(groups: Sequence[Sequence[EpisodeNumbers]]) -> dict[str, float]:
    scores = [[one.reward["score"] for one in group] for group in groups]
    right = [[one.reward["acc"] == 1.0 for one in group] for group in groups]
    return {
        "group/count": float(len(groups)),
        "group/zero_variance_frac": mean(max(some) - min(some) <= EQUAL for some in scores),
        "group/all_right_frac": mean(all(some) for some in right),
        "group/all_wrong_frac": mean(not any(some) for some in right),
    }


def _of_calls(numbers: Sequence[EpisodeNumbers]) -> dict[str, float]:
    calls, code = _added(one.calls for one in numbers), _added(one.code for one in numbers)
    errors, by_tool = _added(one.errors for one in numbers), _added(one.errors_by_tool for one in numbers)
    found = {f"tool/{name}/calls/mean": count / len(numbers) for name, count in calls.items()}
    found |= {f"tool/{name}/error_frac": by_tool[name] / count for name, count in calls.items() if count}
    found |= {f"code/{kind}/calls/mean": count / len(numbers) for kind, count in code.items()}
    return found | {f"tool_error/{name}/calls/mean": count / len(numbers) for name, count in errors.items()}


def _of_waits(numbers: Sequence[EpisodeNumbers]) -> dict[str, float]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in numbers:
        for name, some in one.seconds.items():
            seconds[name].extend(some)
    found = {f"latency/{name}_s/mean": mean(some) for name, some in seconds.items() if some}
    found |= {f"latency/{name}_s/max": max(some) for name, some in seconds.items() if some}
    lookups = _added(one.lookups for one in numbers)
    asked = {name: count for name, count in lookups.items() if count and not name.endswith("_hits")}
    return found | {f"cache/{name}_hit_frac": lookups[f"{name}_hits"] / count for name, count in asked.items()}


def spread_choice(episodes: Sequence[tuple[str, EpisodeNumbers]], *, number: int, seed: int) -> list[EpisodeNumbers]:
    """So many episodes, by chance: one of each group before a second of any."""
    order = sorted(range(len(episodes)), key=lambda place: (episodes[place][0], episodes[place][1].episode_id))
    random.Random(seed).shuffle(order)  # noqa: S311 - nothing secret
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, int]] = []
    for place in order:
        group = episodes[place][0]
        turns.append((seen[group], len(turns), place))
        seen[group] += 1
    return [episodes[place][1] for _, _, place in sorted(turns)[:number]]


def mean(values: Iterable[float]) -> float:
    """The mean of some numbers, of which there is at least one."""
    some = list(values)
    return float(sum(some)) / len(some)


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total
