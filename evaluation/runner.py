"""Ask every question, commit each episode when it is done, score, summarise.

A run's folder explains itself:
    run.json          what was asked of whom: benchmark, file, model, mode, prompt hash, limits, versions
    episodes.jsonl    one finished episode a line (agent/trajectory.py), with its item
    scores.jsonl      one grade a line; made again from the episodes at any time, without a model
    summary.json      totals
    search.json       what searching took and cost, if there was any
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.episode import Episode, EpisodeLimits, run_episode
from agent.errors import ToolUnavailable
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.prompts import Prompt, load_prompt
from agent.scheduling import for_each
from agent.search.gateway import Search, open_search, pages_of, usable_tools
from agent.tools import ToolContext, ToolSettings, build_tools
from agent.trajectory import TrajectoryWriter, read_records
from code_sandbox.client import SandboxClient
from evaluation.benchmarks import Benchmark, Grade, Item
from evaluation.statistics import wilson_interval


class RunSettings(BaseModel):
    """Everything that decides a run's numbers; a folder is resumed only with equal settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    data: str
    model: str
    """Name or folder, for the record; the address is not part of a run's identity."""
    mode: str = Field("agent", pattern="^(agent|direct)$")
    """`agent`: with tools. `direct`: the same model without."""
    prompt: str
    tools: tuple[str, ...] = ("python",)
    search: dict[str, Any] | None = None
    """A block as in RL recipes, for the tools `search` and `fetch_page`; mode and provider are part of a run's identity."""
    image_search: dict[str, Any] | None = None
    max_turns: int = Field(9, ge=1)
    max_reply_tokens: int = Field(8192, ge=1)
    temperature: float = Field(0.0, ge=0)
    primer: str = ""
    python_timeout_s: float = Field(60.0, gt=0)
    limit: int | None = Field(None, ge=1)
    """First so many items only."""

    @property
    def tools_on(self) -> tuple[str, ...]:
        """The tools of an episode, without those whose source is off."""
        return usable_tools(self.tools, self.search, self.image_search) if self.mode == "agent" else ()

    @property
    def tool_settings(self) -> ToolSettings:
        """What tools keep and the prompt promises."""
        return ToolSettings(python_timeout_s=self.python_timeout_s)


class RunStopped(RuntimeError):
    """A budget is spent: what was done is kept, and the same command goes on when there is more."""


class RunMismatch(ValueError):
    """The folder holds a run with other settings."""


def open_run(directory: Path, settings: RunSettings) -> None:
    """Make the folder, or check that it holds the same run.

    Raises:
        RunMismatch: The message names what differs.
    """
    path = directory / "run.json"
    prompt = _prompt(settings)
    described = settings.model_dump(mode="json") | {"prompt_sha256": prompt.sha256}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        differs = [key for key in described if known.get(key) != described[key]]
        if differs:
            changes = ", ".join(f"{key}: {known.get(key)!r} then, {described[key]!r} now" for key in differs)
            raise RunMismatch(f"{directory} holds another run ({changes}); give another --out, or delete it")
        return
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=1), encoding="utf-8")


def _prompt(settings: RunSettings) -> Prompt:
    name = "direct" if settings.mode == "direct" else settings.prompt
    return load_prompt(name, tools=settings.tools_on, settings=settings.tool_settings)


def opening(item: Item, prompt: Prompt) -> tuple[Message, ...]:
    """System prompt and question; images come first, as in training."""
    images = item.read_images()
    placeholders = "".join(f"{IMAGE_PLACEHOLDER}\n" for _ in images)
    return Message("system", prompt.system), Message("user", placeholders + prompt.question(item.question), images)


def finished_items(directory: Path) -> set[str]:
    """Items whose episode was committed and did not fail."""
    try:
        return {record.facts["item_id"] for record in read_records(directory) if not record.episode.failed}
    except FileNotFoundError:
        return set()


async def infer(
    directory: Path,
    items: Iterable[Item],
    settings: RunSettings,
    *,
    base_url: str,
    served_name: str,
    sandbox_url: str | None,
    max_in_flight: int = 32,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Run the episodes that are still missing.

    Args:
        directory: The run's folder, opened before.
        items: In order; read only as fast as they are needed.
        settings: Of the run.
        base_url: Of the model server, with `/v1`.
        served_name: The model's name there.
        sandbox_url: Needed by the python tool.
        max_in_flight: Episodes at once.
        on_done: Called with the number of finished episodes after each.

    Raises:
        RunStopped: A budget is spent.
    """
    done = finished_items(directory)
    writer = TrajectoryWriter(directory)
    prompt = _prompt(settings)
    client = ChatClient(
        ChatSettings(
            base_url=base_url,
            model=served_name,
            temperature=settings.temperature,
            max_reply_tokens=settings.max_reply_tokens,
            primer=settings.primer,
        )
    )
    names = settings.tools_on
    search, image_search = open_search(settings.search), open_search(settings.image_search)
    sandbox = SandboxClient(sandbox_url) if sandbox_url and "python" in names else None
    count, stopped_by = len(done), ""

    async def one(item: Item) -> bool:
        nonlocal count, stopped_by
        messages = opening(item, prompt)
        context = ToolContext(
            images=messages[-1].images,
            item_id=item.item_id,
            sandbox=sandbox,
            search=search,
            image_search=image_search,
            pages=pages_of(search),
            settings=settings.tool_settings,
        )
        episode = await run_episode(
            messages,
            policy=ChatPolicy(client),
            tools=build_tools(names, context),
            limits=EpisodeLimits(max_turns=settings.max_turns),
        )
        writer.write(episode, item_id=item.item_id, category=item.category, gold=item.gold)
        count += 1
        if on_done is not None:
            on_done(count)
        if episode.ends_run:
            stopped_by = episode.failure
        return not episode.ends_run

    missing = (item for item in itertools.islice(items, settings.limit) if item.item_id not in done)
    try:
        if not await for_each(missing, one, max_in_flight=max_in_flight):
            raise RunStopped(f"the run was ended early; {count} episodes are recorded and kept: {stopped_by}")
    finally:
        await _write_counters(directory, {"search": search, "image_search": image_search})
        for closing in (client, sandbox, search, image_search):
            if closing is not None:
                await closing.aclose()


async def _write_counters(directory: Path, sources: dict[str, Search | None]) -> None:
    """What was asked of each source in this process, and what the run has cost; beside the episodes as `search.json`."""
    found = {}
    for name, source in sources.items():
        if source is not None:
            try:
                calls, usd = await source.spent()
            except ToolUnavailable:
                calls, usd = None, None  # the account is out of reach; what this process counted is still known
            found[name] = {"mode": source.settings.mode, "counters": source.counters, "calls": calls, "usd": usd}
    if found:
        (directory / "search.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def latest_episodes(directory: Path) -> Iterator[tuple[str, Episode]]:
    """Each item's last episode: one that failed and was repeated counts once."""
    latest: dict[str, Episode] = {}
    for record in read_records(directory):
        latest[record.facts["item_id"]] = record.episode
    return iter(latest.items())


def score(directory: Path, benchmark: Benchmark, items: Iterable[Item], *, limit: int | None = None) -> dict[str, Any]:
    """Grade the committed episodes and write `scores.jsonl` and `summary.json`. Never asks a model.

    Raises:
        RunMismatch: The episodes are of other items.
    """
    episodes = dict(latest_episodes(directory))
    rows: list[dict[str, Any]] = []
    for item in itertools.islice(items, limit):
        episode = episodes.pop(item.item_id, None)
        rows.append(_score_row(item, episode, benchmark))
    if episodes:
        raise RunMismatch(
            f"{directory} holds {len(episodes)} episodes of items that the benchmark does not have, such as "
            f"{next(iter(episodes))!r}; is it another benchmark's run, or was --limit lowered?"
        )
    with (directory / "scores.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    summary = summarise(rows) | {"profile": benchmark.PROFILE}
    (directory / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _score_row(item: Item, episode: Episode | None, benchmark: Benchmark) -> dict[str, Any]:
    if episode is None:
        grade, stop = Grade(correct=None, decided_by="not_run"), "not_run"
    elif episode.failed:
        grade, stop = Grade(correct=None, decided_by="failed"), episode.stop_reason.value
    else:
        grade, stop = benchmark.grade(item, episode), episode.stop_reason.value
    return {
        "item_id": item.item_id,
        "category": item.category,
        "gold": item.gold,
        **asdict(grade),
        "stop_reason": stop,
        "tool_calls": episode.calls() if episode else 0,
        "tool_errors": episode.tool_errors if episode else 0,
        "turns": len(episode.turns) if episode else 0,
        "reply_tokens": sum(turn.reply.num_tokens for turn in episode.turns) if episode else 0,
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals of scored rows. What was not evaluated is counted apart and never wrong."""
    by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    categories = {name: _totals(members) for name, members in sorted(by_category.items())}
    accuracies = [totals["accuracy"] for totals in categories.values() if totals["accuracy"] is not None]
    totals = _totals(rows)
    return totals | {
        "macro_accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
        "categories": categories,
        "decided_by": dict(Counter(row["decided_by"] for row in rows)),
        "stop_reasons": dict(Counter(row["stop_reason"] for row in rows)),
    }


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    evaluated = [row for row in rows if row["correct"] is not None]
    correct = sum(row["correct"] for row in evaluated)
    n = len(evaluated)
    return {
        "items": len(rows),
        "evaluated": n,
        "not_evaluated": len(rows) - n,
        "correct": correct,
        "accuracy": correct / n if n else None,
        "accuracy_interval": wilson_interval(correct, n) if n else None,
        "tool_rate": sum(row["tool_calls"] > 0 for row in evaluated) / n if n else None,
        "tool_calls_mean": sum(row["tool_calls"] for row in evaluated) / n if n else None,
        "tool_errors": sum(row["tool_errors"] for row in evaluated),
    }
