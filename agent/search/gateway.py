"""What tools talk to: one source behind a mode, a recording, a shared cache, and one request for equal questions."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent.errors import ReplayMiss, ToolUnavailable
from agent.images import ImageFile
from agent.loading import load_plugin
from agent.search import ImageHit, Page, WebResult
from agent.search.cache import SharedCache
from agent.search.limits import PROVIDERS
from agent.search.recording import AskedQuestion, CorruptEntry, Recording, Response
from agent.search.web import Ledger, WebClient, WebSettings

Mode = Literal["live", "record", "replay", "off"]
T = TypeVar("T")
_log = logging.getLogger(__name__)


class SearchSettings(BaseModel):
    """What every provider's block may say; read from a recipe's `search:` or `image_search:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    """Name of a file in agent/search/providers."""
    mode: Mode = "live"
    """`record` answers from the recording what it holds and records the rest; `replay` asks nobody; `off` takes the tool
    away."""
    recording: Path | None = None
    """A SQLite file; needed by `record` and `replay`."""
    on_miss: Literal["error", "empty"] = "error"
    """What a question is that a replay does not hold: a failed episode, or nothing found. Both are counted."""
    shared_cache: str | None = None
    """Redis that the nodes of a run share, such as redis://host:6379/0."""
    shared_cache_ttl_s: float = Field(7 * 86400.0, gt=0)
    run: str = "default"
    """Runs of one name share a budget in the shared cache."""

    @field_validator("mode", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value


class _FromRecording:
    """The account of a recorded run, off the event loop."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    async def spend(self, calls: int, usd: float, *, max_calls: int | None, max_usd: float | None) -> bool:
        return await asyncio.to_thread(self._recording.spend, calls, usd, max_calls=max_calls, max_usd=max_usd)

    async def spent(self) -> tuple[int, float]:
        return await asyncio.to_thread(self._recording.spent)


class Search:
    """One source as tools see it: a `SearchProvider`, `ImageSearchProvider` and `PageProvider`, as far as the source is one.

    Args:
        settings: Mode and where answers are kept.
        options: The provider's own settings that decide its answers; part of every key.
        provider: None in a replay.
        web: The provider's connection, for its counters.
        recording: See `settings.mode`.
        cache: Shared by nodes.
    """

    def __init__(
        self,
        settings: SearchSettings,
        *,
        options: Mapping[str, Any],
        provider: Any = None,
        web: WebClient | None = None,
        recording: Recording | None = None,
        cache: SharedCache | None = None,
    ) -> None:
        self.settings = settings
        self._options = dict(options)
        self._provider = provider
        self._web = web
        self._recording = recording
        self._cache = cache
        self._under_way: dict[str, asyncio.Task[Response]] = {}
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> dict[str, int]:
        """Since the start of this process.

        `asked`, `from_recording`, `from_shared_cache`, `coalesced`, `live`, `replay_misses`, `corrupt_entries`; and of the
        connection `requests`, `retries`, `failures`.
        """
        return dict(self._counters + (self._web.counters if self._web else Counter()))

    async def spent(self) -> tuple[int, float]:
        """(calls, dollars) of the run."""
        return await self._web.spent() if self._web else (0, 0.0)

    def can(self, ability: Literal["search", "search_image", "open_page"]) -> bool:
        """Whether the source does this; a replay does whatever was recorded."""
        return self._provider is None or hasattr(self._provider, ability)

    async def aclose(self) -> None:
        """Close connections and files."""
        if self._web is not None:
            await self._web.aclose()
        if self._cache is not None:
            await self._cache.aclose()
        if self._recording is not None:
            self._recording.close()

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""

        async def live() -> Response:
            return Response([asdict(result) for result in await self._provider.search(query, max_hits=max_hits)])

        response = await self._answer("search", query, {"max_hits": max_hits}, live, empty=[])
        return [WebResult(**result) for result in response.content]

    async def search_image(self, image: ImageFile, *, item_id: str, max_hits: int) -> list[ImageHit]:
        """See `ImageSearchProvider`."""

        async def live() -> Response:
            hits = await self._provider.search_image(image, item_id=item_id, max_hits=max_hits)
            content = [{"title": hit.title, "thumbnail": hit.thumbnail.sha256} for hit in hits]
            return Response(content, {hit.thumbnail.sha256: hit.thumbnail.data for hit in hits})

        options = {"max_hits": max_hits, "item_id": item_id}
        response = await self._answer("image", image.sha256, options, live, empty=[])
        return [ImageHit(hit["title"], ImageFile(response.blobs[hit["thumbnail"]])) for hit in response.content]

    async def open_page(self, link: str) -> Page:
        """See `PageProvider`."""

        async def live() -> Response:
            return Response(asdict(await self._provider.open_page(link)))

        nothing = asdict(Page("", "", "this page was not recorded"))
        return Page(**(await self._answer("page", link, {}, live, empty=nothing)).content)

    async def _answer(
        self, kind: str, query: str, options: dict[str, Any], live: Callable[[], Awaitable[Response]], *, empty: Any
    ) -> Response:
        self._counters["asked"] += 1
        question = AskedQuestion(provider=self.settings.provider, kind=kind, query=query, options=self._options | options)
        task = self._under_way.get(question.key)
        if task is None:
            task = asyncio.create_task(self._find(question, live, empty))
            self._under_way[question.key] = task
            task.add_done_callback(lambda done: self._forget(question.key, done))
        else:
            self._counters["coalesced"] += 1
        # One episode's deadline must not take the answer from the others that wait for it.
        return await asyncio.shield(task)

    def _forget(self, key: str, done: asyncio.Task[Response]) -> None:
        self._under_way.pop(key, None)
        if not done.cancelled():
            done.exception()  # read, for all who waited may have been cancelled

    async def _find(self, question: AskedQuestion, live: Callable[[], Awaitable[Response]], empty: Any) -> Response:
        replay = self.settings.mode == "replay"
        if self._recording is not None and (found := await self._recorded(question)) is not None:
            self._counters["from_recording"] += 1
            return found
        if replay:
            self._counters["replay_misses"] += 1
            if self.settings.on_miss == "empty":
                return Response(empty)
            raise ReplayMiss(
                f"{question.query!r} ({question.kind}, {question.provider}) is not in {self.settings.recording}; record it "
                "with mode: record, or set on_miss: empty"
            )
        shared = await self._cache.get(question) if self._cache is not None else None
        if shared is not None:
            self._counters["from_shared_cache"] += 1
        response = shared or await live()
        if shared is None:
            self._counters["live"] += 1
            if self._cache is not None:
                await self._cache.put(question, response)
        if self._recording is not None:
            await asyncio.to_thread(self._recording.put, question, response)
        return response

    async def _recorded(self, question: AskedQuestion) -> Response | None:
        assert self._recording is not None
        try:
            return await asyncio.to_thread(self._recording.get, question)
        except CorruptEntry as error:
            self._counters["corrupt_entries"] += 1
            if self.settings.mode == "replay":
                raise ToolUnavailable(f"{error}; record it again") from error
            _log.warning("%s; it is asked again", error)
            return None


def open_search(block: Mapping[str, Any] | None, *, transport: httpx.AsyncBaseTransport | None = None) -> Search | None:
    """Open a source from its block in a recipe.

    Args:
        block: `{provider: …, mode: …, …}`: names of `SearchSettings`, of the provider's `Settings` and of `WebSettings`.
        transport: For tests.

    Returns:
        None for no block, and in mode `off`.

    Raises:
        LookupError: No provider of that name.
        ValueError: A setting is unknown, missing or wrong.
        FileNotFoundError: An index, cache or recording is not there.
    """
    if block is None:
        return None
    if "provider" not in block:
        raise ValueError("a search block needs `provider:`, the name of a file in agent/search/providers")
    module = load_plugin(PROVIDERS, str(block["provider"]))
    shared, asking, own = _sorted_out(block, module)
    settings = SearchSettings(**shared)
    provider_settings = module.Settings(**own)
    if settings.mode == "off":
        return None
    if settings.mode in ("record", "replay") and settings.recording is None:
        raise ValueError(f"mode: {settings.mode} needs `recording:`, the path of a SQLite file")
    options = provider_settings.model_dump(mode="json")
    recording = None
    if settings.mode != "live":
        assert settings.recording is not None
        recording = Recording(settings.recording, writable=settings.mode == "record")
    if settings.mode == "replay":
        return Search(settings, options=options, recording=recording)
    cache = None
    if settings.shared_cache:
        cache = SharedCache(settings.shared_cache, run=settings.run, ttl_s=settings.shared_cache_ttl_s)
    ledger: Ledger | None = cache or (_FromRecording(recording) if recording else None)
    price_usd = getattr(module, "PRICE_USD", 0.0)
    web = WebClient(settings.provider, WebSettings(**asking), price_usd=price_usd, ledger=ledger, transport=transport)
    provider = module.Provider(provider_settings, web)
    return Search(settings, options=options, provider=provider, web=web, recording=recording, cache=cache)


def pages_of(search: Search | None) -> Search | None:
    """The source as one that opens pages, if it is one."""
    return search if search is not None and search.can("open_page") else None


def _sorted_out(block: Mapping[str, Any], module: ModuleType) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The block's settings by whom they are for."""
    owners = (SearchSettings.model_fields, WebSettings.model_fields, module.Settings.model_fields)
    unknown = [name for name in block if not any(name in fields for fields in owners)]
    if unknown:
        known = ", ".join(sorted({name for fields in owners for name in fields}))
        raise ValueError(f"search provider {block['provider']!r} has no setting {', '.join(unknown)}; there are: {known}")
    shared, asking, own = ({name: block[name] for name in block if name in fields} for fields in owners)
    return shared, asking, own
