"""Ask every question, and commit each episode when it is done."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from agent.chat_formats import image_rule_for
from agent.episode import Episode
from agent.errors import ToolUnavailable
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.protocol import render_error_observation
from agent.records import EpisodeKey
from agent.scheduling import for_each
from agent.search.gateway import Search
from agent.setup import open_setup, question
from agent.tools import Tool, ToolResult
from agent.trajectory import TrajectoryWriter
from code_sandbox.pools import Pools
from evaluation.benchmarks import Item
from evaluation.runs.folder import facts_of, finished, locked
from evaluation.runs.settings import RunSettings
from serving.fleet import Fleet

_log = logging.getLogger(__name__)
_FAILURES_TO_STOP = 16


class RunStopped(RuntimeError):
    """Going on is pointless for now: what was done is kept, and the same command goes on later."""


class _Withheld:
    """A tool that runs, and whose result the model is not shown: what is left is the form of an agent.

    The ablation "format only" of arXiv 2606.02357: what tools are worth beyond it is what their results are worth.
    """

    def __init__(self, tool: Tool) -> None:
        self._tool = tool

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        result = await self._tool.run(arguments)
        return replace(result, observation=render_error_observation("The result is not shown."))

    async def close(self) -> None:
        await self._tool.close()


class _Stop:
    """When going on is pointless: a budget is spent, no server is left, or nothing but failures comes back."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._failures = 0
        self.reason = ""

    def look(self, episode: Episode) -> bool:
        """Whether to stop."""
        self._failures = self._failures + 1 if episode.failed else 0
        if episode.outage is not None and episode.outage.ends_run:
            self.reason = episode.failure
        elif episode.failed and self._fleet.down:
            self.reason = self._fleet.down
        elif self._failures >= _FAILURES_TO_STOP:
            self.reason = f"{self._failures} episodes failed in a row, the last because of {episode.failure}"
        return bool(self.reason)


async def infer(
    directory: Path,
    items: Iterable[Item],
    settings: RunSettings,
    *,
    base_urls: Sequence[str],
    served_name: str,
    api_key: str = "EMPTY",
    dialect: Literal["vllm", "openai"] = "vllm",
    max_episodes: int = 32,
    patience_s: float = 30.0,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Run the episodes that are still missing.

    Args:
        directory: The run's folder, opened before.
        items: In order; read only as fast as they are needed.
        settings: Of the run.
        base_urls: Of the model's servers, with `/v1`.
        served_name: The model's name there.
        api_key: Of the model's servers.
        dialect: Of agent/openai_chat.py.
        max_episodes: At once, and requests; fewer requests while servers refuse many.
        patience_s: How long to wait while no model server answers anybody.
        on_done: Called with the number of finished episodes after each.

    Raises:
        RunStopped: A budget is spent, no model server is left, or only failures come back.
        BenchmarkError: The benchmark's file changed while it was read.
    """
    with locked(directory):
        done = finished(directory)
        writer = TrajectoryWriter(directory)
        fleet = Fleet(base_urls, max_in_flight=max_episodes, inner=Pools(), patience_s=patience_s)
        chat = ChatSettings(
            base_url=base_urls[0],
            model=served_name,
            api_key=api_key,
            dialect=dialect,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        client = ChatClient(chat, transport=fleet)
        rule = image_rule_for(settings.model, settings.image_max_pixels)
        setup = open_setup(settings.agent, image_rule=rule, can_prime=chat.can_prime)
        wrap = _Withheld if settings.mode == "agent-blind" else None
        count, stop = len(done), _Stop(fleet)

        async def one(work: tuple[Item, int]) -> bool:
            nonlocal count
            item, sample = work
            images = item.read_images()
            episode = await setup.play(
                await asyncio.to_thread(setup.opening, question(item.question, images)),
                ChatPolicy(
                    client,
                    max_reply_tokens=settings.max_reply_tokens,
                    primer=setup.primer,
                    seed=None if settings.seed is None else settings.seed + sample,
                ),
                images=images,
                item_id=item.item_id,
                wrap=wrap,
            )
            writer.write(episode, facts_of(item, settings.benchmark, sample))
            count += 1
            if on_done is not None:
                on_done(count)
            return not stop.look(episode)

        missing = (
            (item, sample)
            for item in itertools.islice(items, settings.limit)
            for sample in range(settings.samples)
            if EpisodeKey(item.item_id, sample) not in done
        )
        try:
            if not await for_each(missing, one, max_in_flight=max_episodes):
                raise RunStopped(f"the run was ended early; {count} episodes are recorded and kept: {stop.reason}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # what broke one episode's set-up is told by itself
        finally:
            await _write_counters(directory, {"search": setup.search, "image_search": setup.image_search})
            await client.aclose()
            await setup.aclose()


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
