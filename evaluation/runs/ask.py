"""Ask every question, and commit each episode when it is done."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.chat_formats import begins_replies, image_rule_for
from agent.episode import Episode
from agent.errors import ToolUnavailable
from agent.model_keys import NO_KEY
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.protocol import render_error_observation
from agent.record_images import IN_DATA, RecordImages, record_store
from agent.records import EpisodeKey
from agent.scheduling import for_each
from agent.search.gateway import Search
from agent.setup import open_setup, question
from agent.tools import Tool, ToolResult
from agent.trajectory import TrajectoryWriter
from code_sandbox.command_line import OUTAGE
from code_sandbox.pools import Pools
from evaluation.benchmarks import Item
from evaluation.runs.folder import facts_of, finished, locked, read_items
from evaluation.runs.outages import ITEMS_OF_A_GENERAL_OUTAGE, outages_of
from evaluation.runs.settings import EvaluationSettings
from serving.fleet import Fleet

_log = logging.getLogger(__name__)
_LOOK_S, _SAID_AFTER_S = 0.5, 2.0
"""How often a run looks whether it waits for a server, and after how long that is said."""


class RunStopped(RuntimeError):
    """Going on is pointless for now: what was done is kept, and the same command goes on later."""

    exit_status = OUTAGE


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

    def look(self, episode: Episode, *, again: bool) -> bool:
        """Whether to stop; `again`: only what has failed before is played now, and may well fail in a row."""
        self._failures = self._failures + 1 if episode.failed else 0
        if episode.outage is not None and episode.outage.ends_run:
            self.reason = episode.failure
        elif episode.failed and self._fleet.down:
            self.reason = self._fleet.down
        elif self._failures >= ITEMS_OF_A_GENERAL_OUTAGE and not again:
            self.reason = f"{self._failures} episodes failed in a row, the last because of {episode.failure}"
        return bool(self.reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelServers:
    """Who is asked, and how much at once; nothing of this changes a score."""

    base_urls: tuple[str, ...]
    """With `/v1`."""
    served_name: str
    """The model's name there."""
    api_key: str = NO_KEY
    dialect: Literal["vllm", "openai"] = "vllm"
    """Of agent/openai_chat.py."""
    max_episodes: int = 32
    """At once, and requests; fewer requests while servers refuse many."""
    patience_s: float = 30.0
    """How long to wait while no model server answers anybody."""

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ValueError("no model server is named; give its base URL, with /v1")

    def chat(self, settings: EvaluationSettings) -> ChatSettings:
        """How the first of them is asked; a fleet sends what is asked of it to any."""
        return ChatSettings(
            base_url=self.base_urls[0],
            model=self.served_name,
            api_key=self.api_key,
            dialect=self.dialect,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )


class _Asker:
    """Plays one episode after the other and commits each."""

    def __init__(self, directory: Path, settings: EvaluationSettings, servers: ModelServers) -> None:
        chat = servers.chat(settings)
        self._settings = settings
        # A file that lies in a store has its images there, and what tools make of them goes there too.
        images = RecordImages(directory, fanned=False, store=record_store(IN_DATA, [settings.data]))
        self._writer = TrajectoryWriter(directory, images=images)
        pools = Pools(max_in_flight=servers.max_episodes)
        fleet = Fleet(servers.base_urls, max_in_flight=servers.max_episodes, inner=pools, patience_s=servers.patience_s)
        self._fleet, self._urls = fleet, servers.base_urls
        self._client, self.stop = ChatClient(chat, transport=fleet, others=servers.base_urls), _Stop(fleet)
        rule = image_rule_for(settings.model, settings.image_max_pixels)
        can_prime = chat.can_prime and not begins_replies(settings.model)
        self.setup = open_setup(settings.agent, image_rule=rule, can_prime=can_prime)
        self._wrap = _Withheld if settings.mode == "agent-blind" else None

    async def ask(self, item: Item, sample: int) -> Episode:
        """Play an item's episode, and write it down."""
        images, settings = item.read_images(), self._settings
        policy = ChatPolicy(
            self._client,
            max_reply_tokens=settings.max_reply_tokens,
            primer=self.setup.primer,
            seed=None if settings.seed is None else settings.seed + sample,
        )
        opening = await asyncio.to_thread(self.setup.opening, question(item.question, images))
        episode = await self.setup.play(opening, policy, images=images, item_id=item.item_id, wrap=self._wrap)
        self._writer.write(episode, facts_of(item, settings.benchmark, sample))
        return episode

    def waits_for(self) -> str:
        """Which server keeps episodes waiting now; empty for none."""
        if self._fleet.all_broken:
            return f"the model at {', '.join(self._urls)}"
        sandbox = self.setup.sandbox
        return f"the sandbox at {', '.join(sandbox.base_urls)}" if sandbox is not None and sandbox.num_waiting else ""

    async def aclose(self) -> None:
        await self._client.aclose()
        await self.setup.aclose()


async def _say_waits(asker: _Asker, say: Callable[[str], object]) -> None:
    """Say so where a run waits for a server, once it has for a moment, and when it goes on."""
    said, waited_s = "", 0.0
    while True:
        await asyncio.sleep(_LOOK_S)
        what = asker.waits_for()
        waited_s = waited_s + _LOOK_S if what else 0.0
        if what and waited_s >= _SAID_AFTER_S and what != said:
            say(f"waiting for {what}, which is away or full")
            said = what
        elif said and not what:
            say(f"{said} is back")
            said = ""


async def infer(
    directory: Path,
    items: Iterable[Item],
    settings: EvaluationSettings,
    servers: ModelServers,
    *,
    on_done: Callable[[int], None] | None = None,
    on_wait: Callable[[str], object] = _log.warning,
) -> None:
    """Run the episodes that are still missing.

    Args:
        directory: The run's folder, opened before.
        items: In order; read only as fast as they are needed.
        settings: Of the run.
        servers: Of the model.
        on_done: Called with the number of finished episodes after each.
        on_wait: Called with a line when the run begins to wait for a server, and when that is over.

    Raises:
        RunStopped: A budget is spent, no model server is left, or only failures come back.
        BenchmarkError: The benchmark's file changed while it was read.
    """
    with locked(directory):
        done = finished(directory, settings)
        unread = {item.item_id for item in read_items(directory).values() if item.unread}
        count, asker = len(done), _Asker(directory, settings, servers)

        async def one(work: tuple[Item, int]) -> bool:
            nonlocal count
            episode = await asker.ask(*work)
            if episode.failed:
                failed.append(work)
            count += attempt == 1
            if on_done is not None:
                on_done(count)
            return not asker.stop.look(episode, again=attempt > 1)

        missing: Iterable[tuple[Item, int]] = (
            (item, sample)
            for item in itertools.islice(items, settings.limit)
            for sample in range(settings.samples)
            if item.item_id not in unread and EpisodeKey(item.item_id, sample) not in done
        )
        waits = asyncio.create_task(_say_waits(asker, on_wait))
        try:
            for attempt in range(1, settings.outage_attempts + 1):
                failed: list[tuple[Item, int]] = []
                alone = 1 < attempt == settings.outage_attempts
                if not await for_each(missing, one, max_in_flight=1 if alone else servers.max_episodes):
                    raise RunStopped(f"the run was ended early; {count} episodes are recorded and kept: {asker.stop.reason}")
                missing = failed
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # what broke one episode's set-up is told by itself
        finally:
            waits.cancel()
            _name_repeated(directory, settings, on_wait)
            await _write_counters(directory, {"search": asker.setup.search, "image_search": asker.setup.image_search})
            await asker.aclose()


def _name_repeated(directory: Path, settings: EvaluationSettings, say: Callable[[str], object]) -> None:
    """Call the items by name that an outage follows."""
    becomes = "it is scored 0" if settings.repeated_outage == "wrong" else "it is not evaluated, and asked again next time"
    for key, why in outages_of(directory, settings).repeated.items():
        say(f"item {key}: {why}; other items were answered. By the setting repeated_outage {becomes}")


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
