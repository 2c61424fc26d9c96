"""Every row looked at once, as the rollouts will see it: read, decoded, counted in tokens.

Threads, not processes: decoding, reading parquet and tokenising all run outside the interpreter's lock, and a single row
group of many gigabytes is shared out among them too. Reports are kept in the cache of the user by checksum of the file and
by every setting that they follow from; those of files that name images by path are not, because the images may change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.chat_formats import ChatFormat, format_of
from agent.files import write_whole
from agent.image_sizes import observation_size
from agent.images import ImageFile, ImageRule, UnreadableImage
from agent.messages import messages_from_rows
from agent.settings import AgentSettings
from agent.setup import opening, prompt_of
from reinforcement_learning.recipe import Recipe, verl_value
from reinforcement_learning.rewards import load_reward
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_files import cache_directory, file_checksum, read_groups
from reinforcement_learning.rows import RowContent, RowOptions, read_row
from reinforcement_learning.verl_adapter.image_store import ImageRef

_FORMAT = "2"
_VERLS_PROMPT_LIMIT = 512
_IN_FLIGHT_PER_THREAD = 4
_SPECIAL = re.compile(r"<\|[A-Za-z0-9_]+\|>")
CountTokens = Callable[[RowContent, Sequence[ImageFile]], int]


@dataclass(slots=True)
class FileReport:
    """What the rows of one file are like."""

    file: str
    rows: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    problems: list[RowError] = field(default_factory=list)
    images: int = 0
    max_tokens: int = 0
    sum_tokens: int = 0
    fitted: int = 0
    """Rows with an image that is given another shape before the model sees it: aspect above 200, or a side under 32 px."""
    escaped: int = 0
    """Rows whose text holds special tokens, which are escaped."""
    from_paths: bool = False
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class _RowReport:
    """The report on one row."""

    source: str = ""
    images: int = 0
    tokens: int = 0
    fitted: bool = False
    escaped: bool = False


def check_file(
    file: str,
    recipe: Recipe,
    options: RowOptions,
    count_tokens: CountTokens | None,
    *,
    settings_key: str,
    threads: int | None = None,
) -> FileReport:
    """Look at every row of a file.

    Args:
        file: A parquet file.
        recipe: With the limits.
        options: How rows are read.
        count_tokens: Of the opening; None where the model's tokenizer is not at hand.
        settings_key: Of all that the reports follow from beside the file.
        threads: As many as there are processors by default.

    Raises:
        RecipeError: The file is no readable parquet file.
    """
    name = hashlib.sha256("\0".join((_FORMAT, file, file_checksum(file), settings_key)).encode()).hexdigest()
    note = cache_directory() / "reports" / f"{name}.json"
    found = _from_cache(note)
    if found is not None:
        return found
    began = time.monotonic()
    reports = FileReport(file)
    limit = _prompt_limit(recipe)
    threads = threads or len(os.sched_getaffinity(0))

    def judge(number: int, raw: Mapping[str, Any]) -> _RowReport | RowError:
        try:
            return check_row(read_row(raw, file=file, row=number, options=options), count_tokens, limit)
        except RowError as error:
            return RowError(error.kind, error.detail, file=file, row=number)

    def rows() -> Iterator[Mapping[str, Any]]:
        for _, raw in read_groups(file, None, options.columns):
            reports.from_paths |= names_files(raw, options)
            yield raw

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_RowReport | RowError]] = deque()
        for number, raw in enumerate(rows()):
            waiting.append(pool.submit(judge, number, raw))
            # No more rows are held than the threads need: one may have many megabytes of images.
            if len(waiting) >= _IN_FLIGHT_PER_THREAD * threads:
                _add(reports, waiting.popleft().result())
        while waiting:
            _add(reports, waiting.popleft().result())
    reports.seconds = time.monotonic() - began
    if not reports.from_paths:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            write_whole(note, json.dumps(_to_json(reports)))
    return reports


def check_row(content: RowContent, count_tokens: CountTokens | None, limit: int) -> _RowReport:
    """Look at one row.

    Raises:
        RowError: It cannot be trained on.
    """
    try:
        load_reward(content.data_source)
    except LookupError as error:
        raise RowError("unknown data source", str(error)) from error
    images, fitted = [ImageFile(data) for data in content.images], False
    for number, image in enumerate(images, start=1):
        try:
            image.check()
            fitted |= observation_size(*image.size) != image.size
        except UnreadableImage as error:
            raise RowError("image is broken", f"image {number} of {len(images)}: {error}; replace the file") from error
    try:
        tokens = count_tokens(content, images) if count_tokens is not None else 0
    except ValueError as error:
        raise RowError("cannot be shown to the model", str(error)) from error
    if tokens > limit:
        sizes = ", ".join(f"{image.size[0]}x{image.size[1]}" for image in images) or "none"
        raise RowError(
            "prompt is too long",
            f"{tokens:,} tokens, {limit:,} are allowed (verl.data.max_prompt_length); images: {sizes}. Set "
            "agent.image_max_pixels, or raise the limit",
        )
    texts = [message["content"] for message in content.messages]
    return _RowReport(content.data_source, len(images), tokens, fitted, any(_SPECIAL.search(text) for text in texts))


def token_counter(recipe: Recipe) -> CountTokens | None:
    """Counts as rollouts do, with the model's own tokenizer and image sizes; None where it is not on this machine."""
    from reinforcement_learning.verl_adapter.token_policy import count_prompt_tokens

    model = model_here(recipe.run.model)
    if model is None:
        return None
    processor, chat_format = model
    rule = chat_format.image_rule(recipe.agent.image_max_pixels, ImageRule.of_processor(processor.image_processor))

    # Only for rows that need it: whether there is one is another check's business.
    prompt = functools.cache(lambda: prompt_of(recipe.agent))

    def size_image(image: ImageFile) -> tuple[ImageRef, int]:
        return ImageRef("", *rule.size(*image.size)), rule.num_tokens(*image.size)

    def count(content: RowContent, images: Sequence[ImageFile]) -> int:
        messages = messages_from_rows(content.messages, images)
        messages = opening(messages, None if messages[0].role == "system" else prompt())
        return count_prompt_tokens(processor.tokenizer, chat_format, size_image, messages)

    return count


@functools.cache
def model_here(name: str) -> tuple[Any, ChatFormat] | None:
    """The processor of a model, and its family's format; None where it is not on this machine, or of no family."""
    from transformers import AutoConfig, AutoProcessor

    try:
        # What is neither a folder nor in the hub's cache is not fetched for the sake of a check.
        processor = AutoProcessor.from_pretrained(name, local_files_only=True)
        model_type = AutoConfig.from_pretrained(name, local_files_only=True).model_type
        return processor, format_of(model_type, str(processor.tokenizer.chat_template or ""))
    except (OSError, ValueError, LookupError):
        return None


def settings_key(recipe: Recipe, options: RowOptions) -> str:
    """All that reports follow from beside the file itself."""
    agent = recipe.agent
    model = Path(recipe.run.model)
    files = ("tokenizer.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
    texts = [
        _prompt_limit(recipe),
        {name: getattr(agent, name) for name in AgentSettings.model_fields if name not in AgentSettings.PLACES},
        [options.prompt_key, options.image_key, list(options.image_roots)],
        [file_checksum(model / name) for name in files if (model / name).is_file()],
        sorted(path.name for path in (Path(__file__).parent.parent / "rewards").glob("*.py")),
    ]  # fmt: skip
    return json.dumps(texts, default=str)


def names_files(raw: Mapping[str, Any], options: RowOptions) -> bool:
    """Whether a row has an image that is a file of its own."""
    value = raw.get(options.image_key)
    images = value if isinstance(value, list) else [value]
    parts = [
        part
        for message in raw.get(options.prompt_key) or ()
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping) and part.get("type") != "text"
    ]
    return any(
        isinstance(image, str) or (isinstance(image, Mapping) and not image.get("bytes") and bool(image.get("path")))
        for image in images
    ) or any(isinstance(part.get(name), str) for part in parts for name in ("image", "path"))


def _prompt_limit(recipe: Recipe) -> int:
    value = verl_value(recipe, "data.max_prompt_length")
    return value if isinstance(value, int) else _VERLS_PROMPT_LIMIT


def _add(reports: FileReport, report: _RowReport | RowError) -> None:
    reports.rows += 1
    if isinstance(report, RowError):
        reports.problems.append(report)
        return
    reports.sources[report.source] += 1
    reports.images += report.images
    reports.sum_tokens += report.tokens
    reports.max_tokens = max(reports.max_tokens, report.tokens)
    reports.fitted += report.fitted
    reports.escaped += report.escaped


_NUMBERS = ("rows", "images", "max_tokens", "sum_tokens", "fitted", "escaped", "seconds")


def _to_json(reports: FileReport) -> dict[str, Any]:
    problems = [[problem.row, problem.kind, problem.detail] for problem in reports.problems]
    numbers = {name: getattr(reports, name) for name in _NUMBERS}
    return {"file": reports.file, "sources": reports.sources, "problems": problems, **numbers}


def _from_cache(note: Path) -> FileReport | None:
    try:
        kept = json.loads(note.read_bytes())
        reports = FileReport(kept["file"], sources=Counter(kept["sources"]), cached=True)
        reports.problems = [RowError(kind, detail, file=reports.file, row=row) for row, kind, detail in kept["problems"]]
        for name in _NUMBERS:
            setattr(reports, name, kept[name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reports
